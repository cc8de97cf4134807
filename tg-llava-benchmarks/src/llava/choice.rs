//! ScienceQA: the letter of an option.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::annotations::read_json;
use super::{LlavaError, Scored};
use crate::report::{Item, Report};
use crate::text;

/// Letters that ScienceQA has.
const LETTERS: [char; 5] = ['A', 'B', 'C', 'D', 'E'];

/// What ScienceQA's scorer reads out of an answer; `None` where it fails.
pub fn scienceqa(answer: &str) -> Option<char> {
    let mut chars = answer.chars();
    let first = chars.next().filter(|letter| LETTERS.contains(letter));
    match (first, chars.as_str()) {
        (Some(letter), "") => return Some(letter),
        (Some(letter), rest) if rest.starts_with(". ") => return Some(letter),
        _ => {}
    }
    let mut found = answer.split("The answer is ").skip(1).filter_map(|rest| {
        let mut chars = rest.chars();
        let letter = chars.next().filter(char::is_ascii_uppercase)?;
        chars.next().filter(|&c| c != '\n').map(|_| letter)
    });
    match (found.next(), found.next()) {
        (Some(letter), None) => Some(letter),
        _ => None,
    }
}

/// The number of the option, from 0, that a letter names among `choices`.
pub fn number(letter: char, choices: usize) -> Option<usize> {
    LETTERS.iter().take(choices).position(|&known| known == letter)
}

/// What is asked about a turn of ScienceQA's file.
pub fn scienceqa_question(turn: &str) -> String {
    format!("{}\n{}", text::strip(&turn.replace("<image>", "")), super::LETTER)
}

/// A problem of ScienceQA.
#[derive(Debug, Deserialize)]
pub struct Problem {
    /// The options.
    pub choices: Vec<String>,
    /// Number of the right one.
    pub answer: usize,
}

/// The problems by name.
///
/// # Errors
/// [`LlavaError`] where their file is not there or cannot be read.
pub fn problems(scored: &Scored<'_>) -> Result<BTreeMap<String, Problem>, LlavaError> {
    read_json(&scored.annotations.file(&["problems.json"])?)
}

/// The scores of the problems of the split `test`, which are wrong where they have no answer.
pub(super) fn score(scored: &Scored<'_>) -> Result<Report, LlavaError> {
    let problems = problems(scored)?;
    let path = scored.annotations.file(&["pid_splits.json"])?;
    let splits: BTreeMap<String, Vec<String>> = read_json(&path)?;
    let unknown = |what: String| LlavaError::Unknown { path: path.clone(), what };
    let names = splits.get("test").ok_or_else(|| unknown("the split `test`".to_owned()))?;
    let answers = scored.answers_by_id();
    let (mut items, mut all, mut pictured) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        let problem = problems.get(name).ok_or_else(|| unknown(format!("problem {name}")))?;
        let answer = answers.get(name);
        let letter = answer.and_then(|answer| scienceqa(&answer.text));
        let number = letter.and_then(|letter| number(letter, problem.choices.len()));
        let hit = f64::from(u8::from(number == Some(problem.answer)));
        all.push(hit);
        if answer.is_some_and(|answer| answer.prompt.contains("<image>")) {
            pictured.push(hit);
        }
        items.push(Item::new(name.clone(), letter.map(String::from), hit));
    }
    let mut scores = BTreeMap::from([
        ("total".to_owned(), all.len() as f64),
        ("correct".to_owned(), all.iter().sum()),
        ("accuracy".to_owned(), percent(&all)),
    ]);
    if !pictured.is_empty() {
        scores.insert("img_accuracy".to_owned(), percent(&pictured));
    }
    Ok(Report::of_one(items, scores))
}

fn percent(hits: &[f64]) -> f64 {
    hits.iter().sum::<f64>() / hits.len() as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_alone_in_front_or_after_the_words() {
        for (answer, letter) in [
            ("B", Some('B')),
            ("B. red", Some('B')),
            ("B.", None),
            ("F", None),
            ("The answer is C.", Some('C')),
            ("The answer is C", None),
            ("The answer is A. The answer is B.", None),
            ("", None),
        ] {
            assert_eq!(scienceqa(answer), letter, "{answer}");
        }
        assert_eq!((number('C', 3), number('D', 3)), (Some(2), None));
    }
}
