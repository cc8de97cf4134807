//! MME: two questions of each picture, of which both should be right.

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
