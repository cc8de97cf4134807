//! MMBench: its questions, and the table that its server expects.

use super::{Id, Question};
use crate::table::Table;

/// Options that are looked at.
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// In which language the letter is asked for (`--lang`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Language {
    English,
    Chinese,
}

/// What is asked about a row. The script notes it without the line that asks for the letter.
pub(super) fn question(table: &Table, row: usize, language: Language) -> Question {
    let mut noted = String::new();
    if let Some(hint) = given(table, row, "hint") {
        noted += hint;
        noted.push('\n');
    }
    noted += table.shown(row, "question");
    for (letter, option) in options(table, row) {
        noted += &format!("\n{letter}. {option}");
    }
    let letter = match language {
        Language::English => super::LETTER,
        Language::Chinese => "请直接回答选项字母。",
    };
    let index = table.shown(row, "index");
    let id = index.parse::<i64>().map_or_else(|_| index.into(), |number| Id::Number(number.into()));
    let (text, place) = (format!("{noted}\n{letter}"), format!("line {}", table.line(row)));
    Question { id, image: None, text, noted: Some(noted), category: None, place }
}

/// A row's options by letter; they end at the first that is missing.
pub fn options(table: &Table, row: usize) -> Vec<(&'static str, &str)> {
    LETTERS.iter().map_while(|&letter| Some((letter, given(table, row, letter)?))).collect()
}

/// A cell that says something; to the script, the words nan and none say nothing.
fn given<'a>(table: &'a Table, row: usize, column: &str) -> Option<&'a str> {
    table.cell(row, column).filter(|cell| !["nan", "none"].contains(&cell.to_lowercase().as_str()))
}

/// Columns that the table to submit does not have.
const LEFT_OUT: [&str; 6] = ["hint", "category", "source", "image", "comment", "l2-category"];

/// Where the answer goes.
const PREDICTION: usize = 6;

/// The columns of the table to submit.
pub fn upload_columns(table: &Table) -> Vec<String> {
    let kept = table.columns().iter().filter(|column| !LEFT_OUT.contains(&column.as_str()));
    let mut columns: Vec<String> = kept.cloned().collect();
    columns.insert(PREDICTION.min(columns.len()), "prediction".to_owned());
    columns
}

/// A row of that table, for an answer.
pub fn upload_row(table: &Table, row: usize, answer: &str) -> Vec<String> {
    let cell = |column: String| match column.as_str() {
        "prediction" => answer.to_owned(),
        column => table.cell(row, column).unwrap_or_default().to_owned(),
    };
    upload_columns(table).into_iter().map(cell).collect()
}
