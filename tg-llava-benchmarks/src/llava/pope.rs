//! POPE: whether things are seen that are not there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::annotations::read_json_lines;
use super::{Answer, LlavaError, Question, Scored};
use crate::report::{Item, Report};

/// Reads an answer: no where its first sentence has a word that denies, else yes.
pub fn says_yes(answer: &str) -> bool {
    let sentence = answer.split('.').next().unwrap_or_default().replace(',', "");
    !sentence.split(' ').any(|word| ["No", "not", "no"].contains(&word))
}

/// How well yes is said.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Detection {
    /// Yes, rightly.
    pub true_positive: usize,
    /// Yes, wrongly.
    pub false_positive: usize,
    /// No, rightly.
    pub true_negative: usize,
    /// No, wrongly.
    pub false_negative: usize,
}

impl Detection {
    /// Counts what was said beside what is right.
    pub fn new(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut found = Self::default();
        for (said, right) in pairs {
            *match (said, right) {
                (true, true) => &mut found.true_positive,
                (true, false) => &mut found.false_positive,
                (false, false) => &mut found.true_negative,
                (false, true) => &mut found.false_negative,
            } += 1;
        }
        found
    }

    /// Everything by name.
    fn named(&self) -> BTreeMap<String, f64> {
        let counts = [
            ("samples", self.samples()),
            ("TP", self.true_positive),
            ("FP", self.false_positive),
            ("TN", self.true_negative),
            ("FN", self.false_negative),
        ];
        let shares = [
            ("accuracy", self.accuracy()),
            ("precision", self.precision()),
            ("recall", self.recall()),
            ("f1_score", self.f1()),
            ("yes_ratio", self.yes_ratio()),
        ];
        let counts = counts.map(|(name, count)| (name, count as f64));
        counts.into_iter().chain(shares).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// All answers.
    pub fn samples(&self) -> usize {
        self.true_positive + self.false_positive + self.true_negative + self.false_negative
    }

    /// The share of right answers.
    pub fn accuracy(&self) -> f64 {
        share(self.true_positive + self.true_negative, self.samples())
    }

    /// Of what is called there, the share that is.
    pub fn precision(&self) -> f64 {
        share(self.true_positive, self.true_positive + self.false_positive)
    }

    /// Of what is there, the share that is called so.
    pub fn recall(&self) -> f64 {
        share(self.true_positive, self.true_positive + self.false_negative)
    }

    /// The harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
    }

    /// The share of yes.
    pub fn yes_ratio(&self) -> f64 {
        share(self.true_positive + self.false_positive, self.samples())
    }
}

/// A line of POPE's labels.
#[derive(Deserialize)]
struct Label {
    label: String,
}

/// The scores of each category, whose labels belong to its questions by their order.
pub(super) fn score(scored: &Scored<'_>) -> Result<Report, LlavaError> {
    const LABELS: [&str; 2] = ["coco_pope_", ".json"];
    let mut categories: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let answered: Vec<(&Question, &Answer)> = scored.answered().collect();
    for (at, (question, _)) in answered.iter().enumerate() {
        let category = question.category.as_deref().ok_or_else(|| LlavaError::Question {
            file: scored.questions.file.clone(),
            place: question.place.clone(),
            reason: "no `category`, which tells the file of its label".to_owned(),
        })?;
        categories.entry(category).or_default().push(at);
    }
    if categories.is_empty() {
        return Err(LlavaError::NoQuestions { file: scored.questions.file.clone() });
    }
    // So that a message about no labels at all tells how they are called.
    scored.annotations.all(&LABELS.join("*"))?;
    let (mut rights, mut splits) = (BTreeMap::new(), BTreeMap::new());
    for (category, own) in categories {
        let path = scored.annotations.file(&[&LABELS.join(category)])?;
        let labels: Vec<Label> = read_json_lines(&path)?;
        if own.len() != labels.len() {
            return Err(uneven(&path, own.len(), labels.len()));
        }
        let rights_of: Vec<(usize, bool)> =
            own.into_iter().zip(&labels).map(|(at, label)| (at, label.label != "no")).collect();
        let pairs = rights_of.iter().map(|&(at, right)| (says_yes(&answered[at].1.text), right));
        splits.insert(category.to_owned(), Detection::new(pairs).named());
        rights.extend(rights_of);
    }
    let item = |(at, (_, answer)): (usize, &(&Question, &Answer))| {
        let said = says_yes(&answer.text);
        let hit = rights.get(&at).map(|&right| f64::from(u8::from(said == right)));
        Item::new(answer.question_id.to_string(), if said { "yes" } else { "no" }.to_owned(), hit)
    };
    Ok(Report { items: answered.iter().enumerate().map(item).collect(), splits })
}

fn uneven(path: &Path, answers: usize, labels: usize) -> LlavaError {
    LlavaError::Unknown {
        path: path.to_path_buf(),
        what: format!("as many questions as have answers: {labels} labels for {answers}"),
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole > 0 { part as f64 / whole as f64 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_decides() {
        for (answer, yes) in [
            ("Yes", true),
            ("No", false),
            ("There is, no,", false),
            ("It is there. No doubt", true),
            ("NO", true),
            ("no\nway", true),
            ("", true),
        ] {
            assert_eq!(says_yes(answer), yes, "{answer}");
        }
    }
}
