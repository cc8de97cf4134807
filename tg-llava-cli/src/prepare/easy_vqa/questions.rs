//! The questions of a split, by picture.

use std::collections::{BTreeSet, HashMap};

use tg_llava_core::conversation::Turn;
use tg_llava_core::tokenizer::IMAGE_TAG;

/// The answers that are shapes.
const SHAPES: [&str; 3] = ["circle", "rectangle", "triangle"];

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub text: String,
    pub answer: String,
}

impl Question {
    /// Whether it asks what shape there is.
    pub fn is_about_shape(&self) -> bool {
        SHAPES.contains(&self.answer.as_str())
    }

    /// Whether it asks what there is, not whether something is there.
    pub fn begins_with_what(&self) -> bool {
        self.text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("what"))
    }
}

/// A picture's number, and the questions about it in the order of the file: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub number: u64,
    pub questions: Vec<Question>,
}

/// The turns of a conversation about one picture.
pub(super) fn conversation<'a>(questions: impl IntoIterator<Item = &'a Question>) -> Vec<Turn> {
    let turns = questions.into_iter().enumerate().flat_map(|(at, question)| {
        let mark = if at == 0 { format!("{IMAGE_TAG}\n") } else { String::new() };
        [Turn::human(mark + &question.text), Turn::gpt(question.answer.clone())]
    });
    turns.collect()
}

/// The lines of `answers.txt`.
pub(super) fn parse_answers(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("{e}; expected one answer a line"))?;
    let answers: BTreeSet<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if answers.is_empty() { Err("no answers; expected one answer a line".into()) } else { Ok(answers) }
}

/// `questions.json` with the pictures in the order in which they first appear; every answer must be among
/// `answers`.
pub(super) fn parse_questions(bytes: &[u8], answers: &BTreeSet<String>) -> Result<Vec<Picture>, String> {
    const EXPECTED: &str = "expected a list of [question, answer, number of the picture]";
    let listed: Vec<(String, String, u64)> =
        serde_json::from_slice(bytes).map_err(|e| format!("{e}; {EXPECTED}"))?;
    if listed.is_empty() {
        return Err(format!("no questions; {EXPECTED}"));
    }
    let mut pictures: Vec<Picture> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    for (at, (text, answer, number)) in listed.into_iter().enumerate() {
        let wrong = |reason: String| Err(format!("question {at} (from 0), {text:?}: {reason}"));
        if text.trim().is_empty() {
            return wrong("it is empty".into());
        }
        if text.contains(IMAGE_TAG) {
            return wrong(format!("it holds {IMAGE_TAG}, which stands for a picture in LLaVA's data"));
        }
        if !answers.contains(&answer) {
            return wrong(format!("the answer {answer:?} is not listed in answers.txt"));
        }
        let place = *places.entry(number).or_insert_with(|| {
            pictures.push(Picture { number, questions: Vec::new() });
            pictures.len() - 1
        });
        pictures[place].questions.push(Question { text, answer });
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> BTreeSet<String> {
        parse_answers(b"yes\r\nred \n\n").unwrap()
    }

    fn error(json: &str) -> String {
        parse_questions(json.as_bytes(), &answers()).unwrap_err()
    }

    #[test]
    fn pictures_keep_the_files_order() {
        let json = br#"[["b?", "yes", 7], ["a?", "red", 2], ["c?", "red", 7]]"#;
        let pictures = parse_questions(json, &answers()).unwrap();
        assert_eq!(pictures.iter().map(|p| p.number).collect::<Vec<_>>(), [7, 2]);
        let texts: Vec<_> = pictures[0].questions.iter().map(|q| q.text.as_str()).collect();
        assert_eq!(texts, ["b?", "c?"]);
    }

    #[test]
    fn kinds_of_questions_are_told_apart() {
        for (text, answer, expected) in [
            ("what is the teal shape?", "triangle", (true, true)),
            ("What color is the circle?", "red", (false, true)),
            ("is there a circle?", "yes", (false, false)),
            ("wha", "no", (false, false)),
            ("whaé?", "no", (false, false)),
        ] {
            let question = Question { text: text.into(), answer: answer.into() };
            assert_eq!((question.is_about_shape(), question.begins_with_what()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(error("[[\"a?\", \"yes\"]]").contains("expected a list of [question, answer"));
        assert!(error("[\n[\"a?\", \"yes\", -1]]").contains("line 2"));
        assert!(error("[]").contains("no questions"));
        assert!(error(r#"[["a?", "yes", 1], ["b?", "blue", 1]]"#).contains("question 1 (from 0), \"b?\""));
        assert!(error(r#"[["b?", "blue", 1]]"#).contains("\"blue\" is not listed in answers.txt"));
        assert!(error(r#"[[" ", "yes", 1]]"#).contains("empty"));
        assert!(error(r#"[["<image>?", "yes", 1]]"#).contains("<image>"));
        assert!(parse_answers(b" \n").unwrap_err().contains("one answer a line"));
        assert!(parse_answers(b"\xff").unwrap_err().contains("utf-8"));
    }
}
