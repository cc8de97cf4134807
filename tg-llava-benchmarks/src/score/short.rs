//! Data sets of short answers, which several people gave.

use super::normal::{punctuation, words};
use super::{Predictions, mean};
use crate::dataset::Short;
use crate::table::{Table, TableError};
use crate::text;

/// What became of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct ShortItem {
    /// The row's index.
    pub index: String,
    /// The answer as it is compared.
    pub normal: String,
    /// What it is compared with.
    pub answers: Vec<String>,
    /// From 0 to 1.
    pub score: f64,
}

/// Verdicts and score of a data set of short answers.
#[derive(Debug, Clone, PartialEq)]
pub struct ShortScores {
    /// The rows in their order.
    pub items: Vec<ShortItem>,
    /// The mean, in percent.
    pub overall: f64,
}

/// Scores `predictions`.
///
/// # Errors
/// [`TableError`] where the table lacks a column, or has an index twice.
pub fn score(table: &Table, kind: Short, predictions: &Predictions) -> Result<ShortScores, TableError> {
    let column = match kind {
        Short::VizWiz => "answers",
        Short::TextVqa | Short::Gqa => "answer",
    };
    table.need(&[column])?;
    let item = |row: usize| {
        let index = table.shown(row, "index").to_owned();
        let (answer, right) = (predictions.seen(&index), table.shown(row, column));
        let right = text::list(right).unwrap_or_else(|| vec![right.to_owned()]);
        let normal: fn(&str) -> String = match kind {
            Short::Gqa => |text| text::strip(text).to_owned(),
            Short::TextVqa | Short::VizWiz => challenge,
        };
        let (normal, answers) = (normal(answer), right.iter().map(|text| normal(text)).collect::<Vec<_>>());
        let score = match kind {
            Short::Gqa => {
                let lower = normal.to_lowercase();
                f64::from(u8::from(answers.iter().any(|answer| answer.to_lowercase() == lower)))
            }
            Short::TextVqa | Short::VizWiz => soft(&normal, &answers),
        };
        ShortItem { index, normal, answers, score }
    };
    let items: Vec<ShortItem> = table.rows()?.into_iter().map(item).collect();
    let scores: Vec<f64> = items.iter().map(|item| item.score).collect();
    Ok(ShortScores { overall: 100.0 * mean(&scores), items })
}

/// A text as the VQA challenge compares it.
pub fn challenge(text: &str) -> String {
    words(&punctuation(text::strip(&text.replace(['\n', '\t'], " "))))
}

/// The mean over the answers of how far the others agree with `normal`: three are enough.
pub fn soft(normal: &str, answers: &[String]) -> f64 {
    let all = answers.iter().filter(|answer| *answer == normal).count();
    let share = |answer: &String| ((all - usize::from(answer == normal)) as f64 / 3.0).min(1.0);
    mean(&answers.iter().map(share).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_ten_are_nine_tenths() {
        let answers = |right: usize, all: usize| -> Vec<String> {
            (0..all).map(|at| if at < right { "a" } else { "b" }.to_owned()).collect()
        };
        for (right, all, score) in [(3, 10, 0.9), (4, 10, 1.0), (1, 1, 0.0), (0, 10, 0.0)] {
            assert!((soft("a", &answers(right, all)) - score).abs() < 1e-12, "{right} of {all}");
        }
    }
}
