//! Data sets of yes and no.

use std::collections::BTreeMap;

use super::normal::punctuation;
use super::{Predictions, mean};
use crate::dataset::YesNo;
use crate::table::{Table, TableError};
use crate::text;

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Verdict {
    Yes,
    No,
    Unknown,
}

impl Verdict {
    /// Reads an answer (`YOrN_Extraction`).
    pub fn of(answer: &str) -> Self {
        let plain = punctuation(&answer.to_lowercase());
        let words = text::words(&plain);
        match (words.contains(&"yes"), words.contains(&"no")) {
            (true, false) => Self::Yes,
            (false, true) => Self::No,
            _ => Self::Unknown,
        }
    }

    /// As reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "Yes",
            Self::No => "No",
            Self::Unknown => "Unknown",
        }
    }
}

/// What became of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YesNoItem {
    /// The row's index.
    pub index: String,
    /// What its answer says.
    pub verdict: Verdict,
    /// Whether that is right.
    pub hit: bool,
}

/// Verdicts and scores of a data set of yes and no.
#[derive(Debug, Clone, PartialEq)]
pub struct YesNoScores {
    /// The rows in their order.
    pub items: Vec<YesNoItem>,
    /// Scores by split and name; MME has one split, `none`.
    pub splits: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Scores `predictions`.
///
/// # Errors
/// [`TableError`] where the table lacks a column, or has an index twice.
pub fn score(table: &Table, kind: YesNo, predictions: &Predictions) -> Result<YesNoScores, TableError> {
    table.need(match kind {
        YesNo::Mme => &["answer", "category", "image_path"],
        YesNo::Pope => &["answer", "category"],
        YesNo::HallusionBench => &["answer", "category", "l2-category"],
    })?;
    let rows = table.rows()?;
    let item = |&row: &usize| {
        let index = table.shown(row, "index").to_owned();
        let verdict = Verdict::of(predictions.seen(&index));
        YesNoItem { hit: verdict.name() == table.shown(row, "answer"), verdict, index }
    };
    let items: Vec<YesNoItem> = rows.iter().map(item).collect();
    let rows: Vec<Row<'_>> = rows.iter().zip(&items).map(|(&row, item)| Row { table, row, item }).collect();
    let splits = match kind {
        YesNo::Mme => BTreeMap::from([("none".to_owned(), mme(&rows))]),
        YesNo::Pope => pope(&rows),
        YesNo::HallusionBench => hallusion(&rows),
    };
    Ok(YesNoScores { items, splits })
}

/// A row with its verdict.
#[derive(Clone, Copy)]
struct Row<'a> {
    table: &'a Table,
    row: usize,
    item: &'a YesNoItem,
}

impl<'a> Row<'a> {
    fn cell(self, column: &str) -> &'a str {
        self.table.shown(self.row, column)
    }

    fn hit(self) -> f64 {
        f64::from(u8::from(self.item.hit))
    }
}

const PERCEPTION: [&str; 10] = [
    "OCR",
    "artwork",
    "celebrity",
    "color",
    "count",
    "existence",
    "landmark",
    "position",
    "posters",
    "scene",
];
const REASONING: [&str; 4] =
    ["code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"];

/// MME: of each category the share of answers that are right, and of pictures of which both are.
fn mme(rows: &[Row<'_>]) -> BTreeMap<String, f64> {
    let mut categories: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    for row in rows {
        let pictures = categories.entry(row.cell("category")).or_default();
        pictures.entry(row.cell("image_path")).or_default().push(row.hit());
    }
    let of = |pictures: &BTreeMap<&str, Vec<f64>>| {
        let all: Vec<f64> = pictures.values().flatten().copied().collect();
        let both: Vec<f64> = pictures.values().map(|hits| hits.iter().take(2).product()).collect();
        100.0 * mean(&all) + 100.0 * mean(&both)
    };
    let mut scores: BTreeMap<String, f64> =
        categories.iter().map(|(name, pictures)| ((*name).to_owned(), of(pictures))).collect();
    for (group, names) in [("perception", &PERCEPTION[..]), ("reasoning", &REASONING[..])] {
        let sum = names.iter().filter_map(|&name| scores.get(name)).sum();
        scores.insert(group.to_owned(), sum);
    }
    scores
}

/// POPE: a row counts once for each of its categories.
fn pope(rows: &[Row<'_>]) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut groups: BTreeMap<String, Vec<Row<'_>>> = BTreeMap::new();
    for row in rows {
        for category in row.cell("category").split(',') {
            for group in ["Overall", category] {
                groups.entry(group.to_owned()).or_default().push(*row);
            }
        }
    }
    groups.into_iter().map(|(name, rows)| (name, detection(&rows))).collect()
}

/// F1, accuracy, precision and recall of saying yes, in percent.
fn detection(rows: &[Row<'_>]) -> BTreeMap<String, f64> {
    let count = |said: bool, right: bool| {
        let of = |row: &&Row<'_>| {
            (row.item.verdict == Verdict::Yes) == said && (row.cell("answer") == Verdict::Yes.name()) == right
        };
        rows.iter().filter(of).count() as f64
    };
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let hits = count(true, true);
    let precision = share(hits, hits + count(true, false));
    let recall = share(hits, hits + count(false, true));
    let hits: Vec<f64> = rows.iter().map(|row| row.hit()).collect();
    let scores = [
        ("Overall", share(2.0 * precision * recall, precision + recall)),
        ("acc", mean(&hits)),
        ("precision", precision),
        ("recall", recall),
    ];
    scores.map(|(name, value)| (name.to_owned(), 100.0 * value)).into()
}

/// HallusionBench: answers that are right, figures and questions of which all are.
fn hallusion(rows: &[Row<'_>]) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut groups: BTreeMap<&str, Vec<Row<'_>>> = BTreeMap::new();
    for row in rows {
        let (group, category) = (row.cell("l2-category"), row.cell("category"));
        for name in ["Overall", group, category] {
            groups.entry(name).or_default().push(*row);
        }
    }
    let scores = |rows: Vec<Row<'_>>| {
        let answers: Vec<f64> = rows.iter().map(|row| row.hit()).collect();
        let scores = [("aAcc", mean(&answers)), ("fAcc", all_right(&rows, 4)), ("qAcc", all_right(&rows, 5))];
        scores.map(|(name, value)| (name.to_owned(), 100.0 * value)).into()
    };
    groups.into_iter().map(|(name, rows)| (name.to_owned(), scores(rows))).collect()
}

/// The share of groups of which every row is right: alike in category, set and the part of the index that `part` numbers.
fn all_right(rows: &[Row<'_>], part: usize) -> f64 {
    let mut groups: BTreeMap<(&str, &str, &str), bool> = BTreeMap::new();
    for row in rows {
        let index: Vec<&str> = row.item.index.split('_').collect();
        let at = |part: usize| index.get(part).copied().unwrap_or_default();
        let all = groups.entry((row.cell("l2-category"), at(3), at(part))).or_insert(true);
        *all &= row.item.hit;
    }
    let right: Vec<f64> = groups.values().map(|&all| f64::from(u8::from(all))).collect();
    mean(&right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no_are_words() {
        for (answer, verdict) in [
            ("Yes, it is.", Verdict::Yes),
            ("no!", Verdict::No),
            ("Yes and no", Verdict::Unknown),
            ("yes-man", Verdict::Yes),
            ("Nothing", Verdict::Unknown),
        ] {
            assert_eq!(Verdict::of(answer), verdict, "{answer}");
        }
    }
}
