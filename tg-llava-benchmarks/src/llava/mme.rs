//! MME: two questions of each picture, of which both should be right.

use std::collections::BTreeMap;

use super::annotations::read;
use super::{LlavaError, Scored};
use crate::report::{Item, Report};
use crate::score::mean;

const SINGLE: &str = "Answer the question using a single word or phrase.";
const ENDING: &str = " Please answer yes or no.";

/// The names under which the release's files may have the question that was asked as `prompt`; the second has two blanks.
pub fn released(prompt: &str) -> [String; 2] {
    let mut question = prompt.to_owned();
    if question.contains(SINGLE) {
        question = crate::text::strip(&question.replace(SINGLE, "")).to_owned();
    }
    if !question.contains(ENDING.trim_start()) {
        question += ENDING;
    }
    let second = question.replace(ENDING, &format!(" {ENDING}"));
    [question, second]
}

/// What an answer says: `yes`, `no` or `other`.
pub fn says(answer: &str) -> &'static str {
    let start: String = answer.to_lowercase().chars().take(4).collect();
    ["yes", "no"].into_iter().find(|word| start.contains(word)).unwrap_or("other")
}

/// A task's score from its answers in their order, two a picture: the shares of right answers and of right pictures, in percent.
pub fn task(hits: &[bool]) -> f64 {
    let all: Vec<f64> = hits.iter().map(|&hit| f64::from(u8::from(hit))).collect();
    let both: Vec<f64> =
        hits.chunks(2).map(|pair| f64::from(u8::from(pair.iter().all(|&hit| hit)))).collect();
    100.0 * mean(&all) + 100.0 * mean(&both)
}

/// An answer beside the question and the right answer of the release's files, as MME's own scorer reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The task, a folder of the release.
    pub task: String,
    /// The picture's file of questions.
    pub file: String,
    /// The question there.
    pub question: String,
    /// The right answer.
    pub answer: String,
    /// What was answered.
    pub prediction: String,
    /// The question's id.
    pub id: String,
}

impl Line {
    /// Whether what was answered is right.
    pub fn hit(&self) -> bool {
        says(&self.prediction) == self.answer.to_lowercase()
    }
}

/// The answers, in the order of their questions.
///
/// # Errors
/// [`LlavaError`] where the release's files lack a question.
pub fn lines(scored: &Scored<'_>) -> Result<Vec<Line>, LlavaError> {
    let release = scored.annotations.folder("MME_Benchmark_release_version", PERCEPTION[0])?;
    let mut known: BTreeMap<_, String> = BTreeMap::new();
    let mut lines = Vec::new();
    for answer in &scored.answers {
        let id = answer.question_id.to_string();
        let (task, picture) = id.split_once('/').unwrap_or((&id, &id));
        let stem = picture.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default();
        let (folder, file) = (release.join(task), format!("{stem}.txt"));
        let nested = folder.join("questions_answers_YN");
        let path = if nested.is_dir() { nested } else { folder }.join(&file);
        if !known.contains_key(&path) {
            known.insert(path.clone(), read(&path)?);
        }
        let pairs = known[&path].lines().filter_map(|line| line.trim().split_once('\t'));
        let pairs: BTreeMap<&str, &str> = pairs.collect();
        let right = released(&answer.prompt).into_iter().find_map(|question| {
            let answer = pairs.get(question.as_str())?;
            Some((question, (*answer).to_owned()))
        });
        let (question, right) = right.ok_or_else(|| LlavaError::Unknown {
            path: path.clone(),
            what: format!("{:?}", answer.prompt),
        })?;
        let (task, prediction) = (task.to_owned(), answer.text.clone());
        lines.push(Line { task, file, question, answer: right, prediction, id });
    }
    Ok(lines)
}

/// The scores of all tasks.
pub(super) fn score(scored: &Scored<'_>) -> Result<Report, LlavaError> {
    let lines = lines(scored)?;
    let mut hits: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    for line in &lines {
        hits.entry(&line.task).or_default().push(line.hit());
    }
    let group = |tasks: &[&str]| {
        let scores = tasks.iter().filter_map(|&name| Some((name.to_owned(), task(hits.get(name)?))));
        let mut scores: BTreeMap<String, f64> = scores.collect();
        scores.insert("total".to_owned(), tasks.iter().filter_map(|&name| scores.get(name)).sum());
        scores
    };
    let splits = [("Perception", group(&PERCEPTION)), ("Cognition", group(&COGNITION))];
    let item = |line: &Line| {
        Item::new(line.id.clone(), says(&line.prediction).to_owned(), f64::from(u8::from(line.hit())))
    };
    Ok(Report {
        items: lines.iter().map(item).collect(),
        splits: splits.map(|(name, scores)| (name.to_owned(), scores)).into(),
    })
}

/// Tasks of perception; all others are of cognition.
pub const PERCEPTION: [&str; 10] = [
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
];

/// Tasks of cognition.
pub const COGNITION: [&str; 4] =
    ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_by_their_first_four_letters() {
        for (answer, read) in
            [("Yes.", "yes"), ("No, it", "no"), ("A no", "no"), ("It is yes", "other"), ("Nope yes", "no")]
        {
            assert_eq!(says(answer), read, "{answer}");
        }
        assert_eq!(
            released("Is it?\nAnswer the question using a single word or phrase.")[1],
            "Is it?  Please answer yes or no."
        );
        assert_eq!(task(&[true, true, true, false]), 125.0);
    }
}
