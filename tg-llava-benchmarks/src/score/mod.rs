//! Verdicts and scores as the original scorers give them.

pub mod choice;
pub mod judged;
pub mod normal;
pub mod ocr;
pub mod option;
pub mod short;
pub mod yes_no;

use std::collections::BTreeMap;

use crate::table::is_missing;

/// Answers by the index of their row.
#[derive(Debug, Clone, Default)]
pub struct Predictions(BTreeMap<String, String>);

impl Predictions {
    /// Answers, each with its row's index.
    pub fn new(answers: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(answers.into_iter().collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is an answer to a row, even an empty one.
    pub fn has(&self, index: &str) -> bool {
        self.0.contains_key(index)
    }

    /// The answer to a row as scorers see it, which read it from a table: where it is empty or reads as missing, `nan`.
    pub fn seen(&self, index: &str) -> &str {
        self.0.get(index).map(String::as_str).filter(|answer| !is_missing(answer)).unwrap_or("nan")
    }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
