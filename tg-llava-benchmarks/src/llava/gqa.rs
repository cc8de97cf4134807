//! GQA: answers that are equal.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::annotations::read_json;
use super::{LlavaError, Scored, two_decimals};
use crate::report::{Item, Report};
use crate::score::mean;

/// An answer as it is submitted.
pub fn submitted(answer: &str) -> String {
    answer.trim_end_matches('.').to_lowercase()
}

/// A balanced question whose answers are compared as a distribution.
#[derive(Debug, Clone, Copy)]
pub struct Grouped<'a> {
    /// Its global group.
    pub group: &'a str,
    /// The right answer.
    pub right: &'a str,
    /// The answer as submitted.
    pub answer: &'a str,
}

/// How far answers are spread otherwise than the right ones are ("Distribution", lower is better): of each group the chi-square
/// statistic over its right answers, weighted by the group's questions, over 100.
pub fn distribution<'a>(questions: impl IntoIterator<Item = Grouped<'a>>) -> f64 {
    let mut groups: BTreeMap<&str, [BTreeMap<&str, f64>; 2]> = BTreeMap::new();
    for Grouped { group, right, answer } in questions {
        let [expected, observed] = groups.entry(group).or_default();
        *expected.entry(right).or_default() += 1.0;
        *observed.entry(answer).or_default() += 1.0;
    }
    let (mut sum, mut all) = (0.0, 0.0);
    for [expected, observed] in groups.values() {
        let of = |(answer, count): (&&str, &f64)| {
            (observed.get(answer).copied().unwrap_or(0.0) - count).powi(2) / count
        };
        let questions: f64 = expected.values().sum();
        sum += expected.iter().map(of).sum::<f64>() * questions;
        all += questions;
    }
    sum / all / 100.0
}

/// What the data set says about a question.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Annotation {
    answer: String,
    is_balanced: bool,
    #[serde(default)]
    groups: Groups,
    types: Types,
}

#[derive(Debug, Default, Deserialize)]
struct Groups {
    #[serde(default)]
    global: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Types {
    structural: String,
}

/// An answer beside what the data set says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The question's id.
    pub id: String,
    /// The answer as submitted.
    pub answer: String,
    /// The right answer.
    pub right: String,
    /// Whether the question counts.
    pub is_balanced: bool,
    group: Option<String>,
    is_open: bool,
}

impl Line {
    /// Whether the answer is right.
    pub fn hit(&self) -> bool {
        self.answer == self.right
    }
}

/// The answers, in the order of their questions.
///
/// # Errors
/// [`LlavaError`] where the annotations lack a question.
pub fn lines(scored: &Scored<'_>) -> Result<Vec<Line>, LlavaError> {
    let path = scored.annotations.only(&["testdev_balanced_questions.json", "*_balanced_questions.json"])?;
    let known: BTreeMap<String, Annotation> = read_json(&path)?;
    let line = |answer: &super::Answer| {
        let id = answer.question_id.to_string();
        let unknown = || LlavaError::Unknown { path: path.clone(), what: format!("question {id}") };
        let Annotation { answer: right, is_balanced, groups, types } = known.get(&id).ok_or_else(unknown)?;
        Ok(Line {
            answer: submitted(&answer.text),
            right: right.clone(),
            is_balanced: *is_balanced,
            group: groups.global.clone(),
            is_open: types.structural == "query",
            id,
        })
    };
    scored.answers.iter().copied().map(line).collect()
}

/// The scores of the balanced questions, in percent with two decimals as the official scorer prints them.
pub(super) fn score(scored: &Scored<'_>) -> Result<Report, LlavaError> {
    let lines = lines(scored)?;
    let mut hits: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let hit = |line: &Line| f64::from(u8::from(line.hit()));
    for line in lines.iter().filter(|line| line.is_balanced) {
        for group in [if line.is_open { "Open" } else { "Binary" }, "Accuracy"] {
            hits.entry(group).or_default().push(hit(line));
        }
    }
    let mut scores: BTreeMap<String, f64> =
        hits.into_iter().map(|(group, hits)| (group.to_owned(), two_decimals(100.0 * mean(&hits)))).collect();
    let grouped = lines.iter().filter(|line| line.is_balanced).filter_map(|line| {
        Some(Grouped { group: line.group.as_deref()?, right: &line.right, answer: &line.answer })
    });
    let grouped: Vec<Grouped<'_>> = grouped.collect();
    if !grouped.is_empty() {
        scores.insert("Distribution".to_owned(), two_decimals(distribution(grouped)));
    }
    let item =
        |line: &Line| Item::new(line.id.clone(), line.answer.clone(), line.is_balanced.then(|| hit(line)));
    Ok(Report::of_one(lines.iter().map(item), scores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_spread_as_the_right_ones_have_no_distance() {
        let pair = |right, answer| Grouped { group: "colour", right, answer };
        assert_eq!(distribution([pair("red", "blue"), pair("blue", "red")]), 0.0);
        assert_eq!(distribution([pair("red", "red"), pair("blue", "red")]), 0.02);
    }
}
