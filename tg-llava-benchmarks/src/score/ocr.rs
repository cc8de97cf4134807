//! OCRBench: an answer must hold one of several texts.

use std::collections::BTreeMap;

use super::Predictions;
use crate::table::{Table, TableError};
use crate::text;

/// The category of which case and no blank counts.
const FORMULAS: &str = "Handwritten Mathematical Expression Recognition";

/// Categories that reports count together.
const RECOGNITION: [&str; 6] = [
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
];

/// Categories of reports, in their order.
const REPORTED: [&str; 5] = [
    "Text Recognition",
    "Scene Text-centric VQA",
    "Doc-oriented VQA",
    "Key Information Extraction",
    FORMULAS,
];

/// Verdicts and counts.
#[derive(Debug, Clone, PartialEq)]
pub struct OcrScores {
    /// Index of each row, and whether its answer holds what it must.
    pub items: Vec<(String, bool)>,
    /// Rows that are right by category, `Final Score`, and `Final Score Norm`, which is a tenth of it.
    pub scores: BTreeMap<String, f64>,
}

/// Scores `predictions`.
///
/// # Errors
/// [`TableError`] where the table lacks a column, or has an index twice.
pub fn score(table: &Table, predictions: &Predictions) -> Result<OcrScores, TableError> {
    table.need(&["answer", "category"])?;
    let mut scores: BTreeMap<String, f64> = REPORTED.map(|name| (name.to_owned(), 0.0)).into();
    let mut items = Vec::new();
    for row in table.rows()? {
        let (index, category) = (table.shown(row, "index"), table.shown(row, "category"));
        let normal: fn(&str) -> String = match category {
            FORMULAS => |text| text::strip(text).replace(['\n', ' '], ""),
            _ => |text| text::strip(&text.to_lowercase()).replace('\n', " "),
        };
        let right = table.shown(row, "answer");
        let right = text::list(right).unwrap_or_else(|| vec![right.to_owned()]);
        let answer = normal(predictions.seen(index));
        let hit = right.iter().any(|text| answer.contains(&normal(text)));
        let reported = if RECOGNITION.contains(&category) { REPORTED[0] } else { category };
        *scores.entry(reported.to_owned()).or_default() += f64::from(u8::from(hit));
        items.push((index.to_owned(), hit));
    }
    let sum: f64 = REPORTED.iter().filter_map(|&name| scores.get(name)).sum();
    scores.insert("Final Score".to_owned(), sum);
    scores.insert("Final Score Norm".to_owned(), sum / 10.0);
    Ok(OcrScores { items, scores })
}
