//! Verdicts and scores in one form, and one way to score any of VLMEvalKit's data sets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::{Judged, Kind};
use crate::judge::Judge;
use crate::score::judged::{self, MathGroup};
use crate::score::option::Rules;
use crate::score::{Predictions, choice, ocr, short, yes_no};
use crate::table::{Table, TableError};

/// What became of one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The row's index.
    pub index: String,
    /// What was read from its answer, or what it is compared as; `None` where it could not be read.
    pub read: Option<String>,
    /// From 0 to 1; `None` for a row that counts with another one.
    pub score: Option<f64>,
}

/// Verdicts and scores of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The rows in their order.
    pub items: Vec<Item>,
    /// Scores by split and name, as the original reports them; `none` where there are no splits.
    pub splits: BTreeMap<String, BTreeMap<String, f64>>,
}

/// What scoring came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Scores.
    Scored(Report),
    /// A judge is needed, and there was none.
    NotJudged,
    /// The data set has no answers: its predictions are for its server to score.
    NoAnswers,
}

/// Scores `predictions` for a data set of `kind`.
///
/// # Errors
/// [`TableError`] where the table lacks a column, has an index twice, or a row without prediction.
pub fn score(
    table: &Table,
    kind: Kind,
    predictions: &Predictions,
    rules: Rules,
    judge: Option<&mut dyn Judge>,
) -> Result<Outcome, TableError> {
    table.need_answers(predictions)?;
    let of_judge = matches!(kind, Kind::Judged(_));
    if !of_judge && !table.has("answer") && !table.has("answers") {
        return Ok(Outcome::NoAnswers);
    }
    let report = match (kind, judge) {
        (Kind::Choice(kind), judge) => choices(choice::score(table, kind, predictions, rules, judge)?),
        (Kind::YesNo(kind), judge) => yes_and_no(yes_no::score(table, kind, predictions, judge)?),
        (Kind::Short(kind), _) => {
            let short::ShortScores { items, overall } = short::score(table, kind, predictions)?;
            let item = |item: short::ShortItem| Item::new(item.index, item.normal, item.score);
            Report::of_one(items.into_iter().map(item), [("Overall".to_owned(), overall)])
        }
        (Kind::Ocr, _) => {
            let ocr::OcrScores { items, scores } = ocr::score(table, predictions)?;
            let item = |(index, hit): (String, bool)| {
                let seen = predictions.seen(&index).to_owned();
                Item::new(index, seen, one_if(hit))
            };
            Report::of_one(items.into_iter().map(item), scores)
        }
        (Kind::Judged(_), None) => return Ok(Outcome::NotJudged),
        (Kind::Judged(kind), Some(judge)) => by_judge(table, kind, predictions, judge)?,
    };
    Ok(Outcome::Scored(report))
}

impl Item {
    pub(crate) fn new(index: String, read: impl Into<Option<String>>, score: impl Into<Option<f64>>) -> Self {
        Self { index, read: read.into(), score: score.into() }
    }
}

impl Report {
    /// A report without splits.
    pub(crate) fn of_one(
        items: impl IntoIterator<Item = Item>,
        scores: impl IntoIterator<Item = (String, f64)>,
    ) -> Self {
        let scores = scores.into_iter().collect();
        Self { items: items.into_iter().collect(), splits: [("none".to_owned(), scores)].into() }
    }
}

fn one_if(hit: bool) -> f64 {
    f64::from(u8::from(hit))
}

fn choices(found: choice::ChoiceScores) -> Report {
    let item = |item: choice::ChoiceItem| {
        Item::new(item.index, item.inferred.map(String::from), item.hit.map(one_if))
    };
    Report { items: found.items.into_iter().map(item).collect(), splits: found.splits }
}

fn yes_and_no(found: yes_no::YesNoScores) -> Report {
    let item =
        |item: yes_no::YesNoItem| Item::new(item.index, item.verdict.name().to_owned(), one_if(item.hit));
    Report { items: found.items.into_iter().map(item).collect(), splits: found.splits }
}

fn by_judge(
    table: &Table,
    kind: Judged,
    predictions: &Predictions,
    judge: &mut dyn Judge,
) -> Result<Report, TableError> {
    Ok(match kind {
        Judged::MmVet => {
            let found = judged::mm_vet(table, judge)?;
            let scores = found.combinations.into_iter().chain(found.capabilities);
            let item = |(index, score)| Item::new(index, None, score);
            Report::of_one(
                found.items.into_iter().map(item),
                scores.map(|(name, (_, percent))| (name, percent)),
            )
        }
        Judged::LlavaBench => {
            let (items, scores) = judged::llava_bench(table, judge)?;
            let item = |(index, [_, model]): (String, [f64; 2])| Item::new(index, None, model / 10.0);
            let split = |(name, scores): (String, judged::BenchScores)| {
                let named = [
                    ("Relative Score (main)", scores.relative),
                    ("VLM Score", scores.model),
                    ("GPT4 Score", scores.reference),
                ];
                (name, named.map(|(name, value)| (name.to_owned(), value)).into())
            };
            Report {
                items: items.into_iter().map(item).collect(),
                splits: scores.into_iter().map(split).collect(),
            }
        }
        Judged::MathVista => {
            let found = judged::math_vista(table, predictions, judge)?;
            let item = |item: judged::MathItem| Item::new(item.index, item.extracted, one_if(item.hit));
            let percent = |group: MathGroup| 100.0 * group.hits as f64 / group.total as f64;
            let scores = found.groups.into_iter().map(|(name, group)| (name, percent(group)));
            Report::of_one(found.items.into_iter().map(item), scores)
        }
    })
}
