//! Data sets of VLMEvalKit by name: what they ask for.

/// What kind of answer a data set wants, and so how it is asked and scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The letter of an option.
    Choice(Choice),
    /// Yes or no.
    YesNo(YesNo),
    /// A word or a phrase that several people have given.
    Short(Short),
    /// A text that must hold one of several.
    Ocr,
    /// A text that another model judges.
    Judged(Judged),
}

/// Data sets with options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Each row counts.
    Plain,
    /// Rows ask one question with its options rotated; all must be right (MMBench).
    Circular,
    /// Questions without options get two (MMMU).
    Mmmu,
}

/// Data sets of yes and no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of data sets")]
pub enum YesNo {
    Mme,
    Pope,
    HallusionBench,
}

/// Data sets of short answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of data sets")]
pub enum Short {
    TextVqa,
    Gqa,
    VizWiz,
}

/// Data sets that need a judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of data sets")]
pub enum Judged {
    MmVet,
    LlavaBench,
    MathVista,
}

/// Beginnings of names, and what they mean.
const NAMES: [(&str, Kind); 17] = [
    ("MMBench", Kind::Choice(Choice::Circular)),
    ("MMStar", Kind::Choice(Choice::Plain)),
    ("MMMU", Kind::Choice(Choice::Mmmu)),
    ("MMVet", Kind::Judged(Judged::MmVet)),
    ("AI2D", Kind::Choice(Choice::Plain)),
    ("RealWorldQA", Kind::Choice(Choice::Plain)),
    ("SEEDBench", Kind::Choice(Choice::Plain)),
    ("ScienceQA", Kind::Choice(Choice::Plain)),
    ("MME", Kind::YesNo(YesNo::Mme)),
    ("POPE", Kind::YesNo(YesNo::Pope)),
    ("HallusionBench", Kind::YesNo(YesNo::HallusionBench)),
    ("TextVQA", Kind::Short(Short::TextVqa)),
    ("GQA", Kind::Short(Short::Gqa)),
    ("VizWiz", Kind::Short(Short::VizWiz)),
    ("OCRBench", Kind::Ocr),
    ("LLaVABench", Kind::Judged(Judged::LlavaBench)),
    ("MathVista", Kind::Judged(Judged::MathVista)),
];

impl Kind {
    /// The kind of the data set `name`, which may carry a split and a language (`MMBench_DEV_EN`); `None` for an unknown one.
    pub fn of(name: &str) -> Option<Self> {
        let is_of = |(known, _): &&(&str, Self)| {
            let rest = name
                .get(..known.len())
                .filter(|start| start.eq_ignore_ascii_case(known))
                .map(|_| &name[known.len()..]);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        NAMES.iter().find(is_of).map(|&(_, kind)| kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_languages_are_part_of_the_name() {
        for (name, kind) in [
            ("MMBench_DEV_EN_V11", Some(Kind::Choice(Choice::Circular))),
            ("mmmu_dev_val", Some(Kind::Choice(Choice::Mmmu))),
            ("MME", Some(Kind::YesNo(YesNo::Mme))),
            ("MMEX", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }
}
