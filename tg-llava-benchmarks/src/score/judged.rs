//! Data sets whose answers a judge scores.

use std::collections::{BTreeMap, BTreeSet};

use super::option::{Rules, infer};
use super::{Predictions, mean};
use crate::judge::{Judge, Tries};
use crate::table::{Table, TableError};
use crate::text;

/// MM-Vet's scores.
#[derive(Debug, Clone, PartialEq)]
pub struct MmVetScores {
    /// Index and score of each row, from 0 to 1.
    pub items: Vec<(String, f64)>,
    /// Rows and mean score in percent by capability, and `Overall`.
    pub capabilities: BTreeMap<String, (usize, f64)>,
    /// The same by the combinations that rows have, and `Overall`.
    pub combinations: BTreeMap<String, (usize, f64)>,
}

const CAPABILITIES: [&str; 6] = ["rec", "ocr", "know", "gen", "spat", "math"];

/// Has each answer of MM-Vet scored.
///
/// # Errors
/// [`TableError`] where the table lacks a column, or has an index twice.
pub fn mm_vet(table: &Table, judge: &mut dyn Judge) -> Result<MmVetScores, TableError> {
    table.need(&["category"])?;
    let score = |reply: &str| text::to_float(reply).filter(|value| !(*value < 0.0 || *value > 1.0));
    let (mut items, mut combined) = (Vec::new(), BTreeSet::new());
    let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in table.rows()? {
        let (index, category) = (table.shown(row, "index"), table.shown(row, "category"));
        let value = Tries::WARMING.ask(judge, index, score).unwrap_or(0.0);
        // In the original both kinds of groups are one: a row of one capability alone counts twice there, as that and as its
        // combination, and the combination has the capability's score.
        let combination = category.replace(',', "_");
        let named = CAPABILITIES.into_iter().filter(|name| category.contains(name));
        for name in named.chain(["Overall", &combination]) {
            groups.entry(name.to_owned()).or_default().push(value);
        }
        combined.insert(combination);
        items.push((index.to_owned(), value));
    }
    let means: BTreeMap<String, (usize, f64)> =
        groups.into_iter().map(|(name, values)| (name, (values.len(), 100.0 * mean(&values)))).collect();
    let of = |is_wanted: &dyn Fn(&str) -> bool| {
        let wanted = means.iter().filter(|(name, _)| name.as_str() == "Overall" || is_wanted(name));
        wanted.map(|(name, score)| (name.clone(), *score)).collect()
    };
    let (capabilities, combinations) =
        (of(&|name| CAPABILITIES.contains(&name)), of(&|name| combined.contains(name)));
    Ok(MmVetScores { items, capabilities, combinations })
}

/// What a judge of LLaVA-Bench says about the reference's answer and the model's; -1 for both where its first line is not two numbers.
pub fn pair(reply: &str) -> [f64; 2] {
    let line = reply.split('\n').next().unwrap_or_default().replace(',', " ");
    let mut numbers = line.split(' ').map(text::to_float);
    match (numbers.next().flatten(), numbers.next().flatten(), numbers.next()) {
        (Some(reference), Some(model), None) => [reference, model],
        _ => [-1.0; 2],
    }
}

/// LLaVA-Bench's scores of one group, rounded to one decimal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BenchScores {
    /// The model's in percent of the reference's.
    pub relative: f64,
    /// The reference's, of 100.
    pub reference: f64,
    /// The model's, of 100.
    pub model: f64,
}

/// Whose rounding to one decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Numpy's, as in VLMEvalKit.
    Numpy,
    /// Python's, as in LLaVA's script.
    Python,
}

impl BenchScores {
    /// The scores of some rows, as pairs of the reference's and the model's.
    pub fn new(pairs: &[[f64; 2]], rounding: Rounding) -> Self {
        let round: fn(f64) -> f64 = match rounding {
            Rounding::Numpy => text::round_as_numpy,
            Rounding::Python => text::round_as_python,
        };
        let [reference, model] =
            [0, 1].map(|at| mean(&pairs.iter().map(|pair| pair[at]).collect::<Vec<_>>()));
        Self {
            relative: round(100.0 * (model / reference)),
            reference: round(10.0 * reference),
            model: round(10.0 * model),
        }
    }
}

/// Index of each row with its pair, and the scores by category and `overall`.
pub type BenchReport = (Vec<(String, [f64; 2])>, BTreeMap<String, BenchScores>);

/// Has each answer of LLaVA-Bench compared with the reference's.
///
/// # Errors
/// [`TableError`] where the table lacks a column, or has an index twice.
pub fn llava_bench(table: &Table, judge: &mut dyn Judge) -> Result<BenchReport, TableError> {
    table.need(&["category"])?;
    let once = Tries { count: 1, first: 0.2, step: 0.0, max_tokens: 2048 };
    let (mut items, mut groups) = (Vec::new(), BTreeMap::new());
    for row in table.rows()? {
        let index = table.shown(row, "index");
        let found = once.ask(judge, index, |reply| Some(pair(reply))).unwrap_or([-1.0; 2]);
        for group in ["overall", table.shown(row, "category")] {
            groups.entry(group.to_owned()).or_insert_with(Vec::new).push(found);
        }
        items.push((index.to_owned(), found));
    }
    let scores = groups.into_iter().map(|(name, pairs)| (name, BenchScores::new(&pairs, Rounding::Numpy)));
    Ok((items, scores.collect()))
}

/// What became of a row of MathVista.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MathItem {
    /// The row's index.
    pub index: String,
    /// Whether the answer could be read without a judge.
    pub prefetched: bool,
    /// The answer, as read or as the judge says.
    pub extracted: String,
    /// Whether it is right.
    pub hit: bool,
}

/// MathVista's verdicts and scores.
#[derive(Debug, Clone, PartialEq)]
pub struct MathScores {
    /// The rows in their order.
    pub items: Vec<MathItem>,
    /// By task and skill, and `Overall`.
    pub groups: BTreeMap<String, MathGroup>,
}

/// Rows of one task or skill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MathGroup {
    /// All of them.
    pub total: usize,
    /// Those that were read without a judge.
    pub prefetched: usize,
    /// Those that are right.
    pub hits: usize,
}

/// Reads the answers of MathVista, and has the others read.
///
/// # Errors
/// [`TableError`] where the table lacks a column, or has an index twice.
pub fn math_vista(
    table: &Table,
    predictions: &Predictions,
    judge: &mut dyn Judge,
) -> Result<MathScores, TableError> {
    table.need(&["question_type", "answer_type", "answer", "answer_option", "choices", "task", "skills"])?;
    let tries = Tries { max_tokens: 128, ..Tries::WARMING };
    let (mut items, mut groups) = (Vec::new(), BTreeMap::<String, MathGroup>::new());
    for row in table.rows()? {
        let (index, rule) = (table.shown(row, "index"), MathRule::new(table, row));
        let read = rule.read(predictions.seen(index));
        let said = |reply: &str| (!reply.contains(FAILED)).then(|| text::strip(reply).to_owned());
        let prefetched = read.is_some();
        let extracted = read.or_else(|| tries.ask(judge, index, said)).unwrap_or_default();
        let hit = rule.is_right(&extracted);
        let skills = text::list(table.shown(row, "skills")).unwrap_or_default();
        for name in ["Overall", table.shown(row, "task")].into_iter().chain(skills.iter().map(String::as_str))
        {
            let group = groups.entry(name.to_owned()).or_default();
            group.total += 1;
            group.prefetched += usize::from(prefetched);
            group.hits += usize::from(hit);
        }
        items.push(MathItem { index: index.to_owned(), prefetched, extracted, hit });
    }
    Ok(MathScores { items, groups })
}

/// What a judge that cannot be reached replies.
const FAILED: &str = "Failed to obtain answer via API";

/// How an answer is compared.
enum MathRule {
    Choice {
        options: Vec<(char, String)>,
        right: String,
    },
    Integer(String),
    Float(String),
    /// Texts and lists, which never hit: the original compares with nothing.
    Other,
}

impl MathRule {
    fn new(table: &Table, row: usize) -> Self {
        let right = table.shown(row, "answer").to_owned();
        match (table.shown(row, "question_type"), table.shown(row, "answer_type")) {
            ("multi_choice", _) => Self::Choice {
                options: ('A'..='Z')
                    .zip(text::list(table.shown(row, "choices")).unwrap_or_default())
                    .collect(),
                right: table.shown(row, "answer_option").to_owned(),
            },
            (_, "integer") => Self::Integer(right),
            (_, "float") => Self::Float(right),
            _ => Self::Other,
        }
    }

    /// The answer where it can be read without a judge: an option, or a number that is right and not 0.
    fn read(&self, answer: &str) -> Option<String> {
        match self {
            Self::Choice { options, .. } => infer(answer, options, Rules::Current).map(String::from),
            Self::Integer(_) => text::to_integer(answer)
                .filter(|&value| value != 0 && self.is_right(answer))
                .map(|value| value.to_string()),
            Self::Float(_) => {
                text::to_float(answer).filter(|&value| value != 0.0 && self.is_right(answer)).map(text::float)
            }
            Self::Other => None,
        }
    }

    fn is_right(&self, answer: &str) -> bool {
        match self {
            Self::Choice { options, right } => {
                infer(answer, options, Rules::Current).is_some_and(|letter| right.chars().eq([letter]))
            }
            Self::Integer(right) => {
                text::to_integer(answer).is_some_and(|value| text::to_integer(right) == Some(value))
            }
            Self::Float(right) => {
                text::to_float(answer).is_some_and(|value| text::to_float(right) == Some(value))
            }
            Self::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_the_whole_first_line() {
        for (reply, expected) in [
            ("7.5 8.5\nGood.", [7.5, 8.5]),
            ("8,9", [8.0, 9.0]),
            ("9, 6", [-1.0, -1.0]),
            ("Assistant 1: 8", [-1.0, -1.0]),
            ("8", [-1.0, -1.0]),
            ("", [-1.0, -1.0]),
        ] {
            assert_eq!(pair(reply), expected, "{reply}");
        }
    }
}
