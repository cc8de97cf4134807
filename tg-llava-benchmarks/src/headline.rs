//! The few scores of a benchmark that tables of results have.

use crate::dataset::{Judged, Kind, YesNo};
use crate::llava::Benchmark;
use crate::report::Report;

/// A score for a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Headline {
    /// Which of the benchmark's; empty where it has one.
    pub name: String,
    /// In percent, but for MME and OCRBench, which count points.
    pub value: f64,
}

/// A score by split and name, what it is called, and what it is multiplied with.
type Wanted = (&'static str, &'static str, &'static str, f64);

impl Kind {
    /// The scores of a data set of VLMEvalKit that tables have.
    pub fn headlines(self, report: &Report) -> Vec<Headline> {
        let wanted: &[Wanted] = match self {
            Self::Choice(_) => return splits(report, "Overall"),
            Self::YesNo(YesNo::Mme) => {
                &[("none", "perception", "perception", 1.0), ("none", "reasoning", "reasoning", 1.0)]
            }
            Self::YesNo(YesNo::Pope) => &[("Overall", "Overall", "F1", 1.0)],
            Self::YesNo(YesNo::HallusionBench) => &[
                ("Overall", "aAcc", "aAcc", 1.0),
                ("Overall", "fAcc", "fAcc", 1.0),
                ("Overall", "qAcc", "qAcc", 1.0),
            ],
            Self::Ocr => &[("none", "Final Score", "", 1.0)],
            Self::Judged(Judged::LlavaBench) => &[("overall", "Relative Score (main)", "", 1.0)],
            Self::Short(_) | Self::Judged(Judged::MmVet | Judged::MathVista) => {
                &[("none", "Overall", "", 1.0)]
            }
        };
        select(report, wanted)
    }
}

impl Benchmark {
    /// The scores of a benchmark of LLaVA's scripts that tables have.
    pub fn headlines(self, report: &Report) -> Vec<Headline> {
        let wanted: &[Wanted] = match self {
            Self::Pope => return splits(report, "f1_score"),
            Self::Mme => {
                &[("Perception", "total", "perception", 1.0), ("Cognition", "total", "cognition", 1.0)]
            }
            Self::TextVqa | Self::VizWiz => &[("none", "accuracy", "", 100.0)],
            Self::VqaV2 => &[("none", "overall", "", 1.0)],
            Self::Gqa => &[("none", "Accuracy", "", 1.0)],
            Self::ScienceQa => &[("none", "accuracy", "", 1.0), ("none", "img_accuracy", "IMG", 1.0)],
            Self::Seed => &[
                ("none", "Total", "", 1.0),
                ("none", "image", "image", 1.0),
                ("none", "video", "video", 1.0),
            ],
            Self::LlavaBench => &[("all", "relative", "", 1.0)],
            Self::MmBench(_) | Self::MmVet => &[],
        };
        select(report, wanted)
    }
}

/// A share of every split, in percent; the name of the split tells them apart where there are several.
fn splits(report: &Report, name: &str) -> Vec<Headline> {
    let alone = report.splits.len() == 1;
    let headline = |(split, scores): (&String, &std::collections::BTreeMap<String, f64>)| {
        let name_of = if alone { String::new() } else { split.clone() };
        Some(Headline { name: name_of, value: 100.0 * scores.get(name)? })
    };
    report.splits.iter().filter_map(headline).collect()
}

fn select(report: &Report, wanted: &[Wanted]) -> Vec<Headline> {
    let headline = |&(split, score, name, factor): &Wanted| {
        let value = report.splits.get(split)?.get(score)?;
        Some(Headline { name: name.to_owned(), value: factor * value })
    };
    wanted.iter().filter_map(headline).collect()
}
