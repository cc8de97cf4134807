//! TextVQA, VizWiz and VQAv2: answers as they are submitted, and their scores.

use crate::score::normal::{Periods, punctuation_by, words};
use crate::score::short::soft;
use crate::text;

/// An answer as it is submitted and scored (`EvalAIAnswerProcessor`).
pub fn submitted(answer: &str) -> String {
    let lower = answer.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    let flat = text::strip(&lower).replace(['\n', '\t'], " ");
    words(&punctuation_by(text::strip(&flat), Periods::BeforeNoDigit))
}

/// The question that a prompt of TextVQA asks, in lower case; `None` where it has another form.
pub fn textvqa_question(prompt: &str) -> Option<String> {
    const TOKENS: &str = "Reference OCR token:";
    let lines: Vec<&str> = prompt.split('\n').collect();
    let question = match lines.as_slice() {
        [_, question, _] if prompt.starts_with(TOKENS) => question,
        [question, _, _] if prompt.contains(TOKENS) => question,
        [question, _] => question,
        _ => return None,
    };
    Some(question.to_lowercase())
}

/// The score of TextVQA and VizWiz for an answer that is submitted, beside what people answered: from 0 to 1.
pub fn score(submitted_answer: &str, answers: &[String]) -> f64 {
    let answers: Vec<String> = answers.iter().map(|answer| submitted(answer)).collect();
    soft(submitted_answer, &answers)
}

/// The score of VQAv2's official scorer: where all people agree, nothing is made alike.
pub fn vqav2_score(answer: &str, answers: &[String]) -> f64 {
    let flat = answer.replace(['\n', '\t'], " ");
    let flat = text::strip(&flat);
    if answers.iter().all(|other| Some(other) == answers.first()) {
        return soft(flat, answers);
    }
    let plain = |text: &str| words(&punctuation_by(text, Periods::BeforeNoDigit));
    let answers: Vec<String> = answers.iter().map(|answer| plain(answer)).collect();
    soft(&plain(flat), &answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_submitted_in_one_form() {
        for (answer, form) in
            [("The Cat's, toy?", "cat 's toy"), ("3.5", "3.5"), ("5.", "5"), ("None", "0"), (" a\nb ", "b")]
        {
            assert_eq!(submitted(answer), form, "{answer}");
        }
    }

    #[test]
    fn the_question_is_found_in_the_prompt() {
        for (prompt, question) in [
            ("What?\nAnswer", Some("what?")),
            ("What?\nReference OCR token: a\nAnswer", Some("what?")),
            ("Reference OCR token: a\nWhat?\nAnswer", Some("what?")),
            ("What?", None),
        ] {
            assert_eq!(textvqa_question(prompt).as_deref(), question, "{prompt}");
        }
    }
}
