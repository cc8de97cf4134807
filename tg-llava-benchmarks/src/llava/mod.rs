//! Benchmarks as LLaVA-1.5's own scripts ask and score them (commit c121f043).

pub mod choice;
pub mod gqa;
pub mod mme;
pub mod pope;
pub mod vqa;

use serde::{Deserialize, Deserializer};

use crate::text;

/// Before every question: the system text of `vicuna_v1`.
const SYSTEM: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and \
                      polite answers to the user's questions.";

/// What asks for a letter.
pub const LETTER: &str = "Answer with the option's letter from the given choices directly.";

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}, line {line}: {source}")]
pub struct LineError {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub source: serde_json::Error,
}

/// Reads one value a line; `file` is what errors call it.
///
/// # Errors
/// [`LineError`] where a line is no such value.
pub fn read_lines<T: for<'a> Deserialize<'a>>(text: &str, file: &str) -> Result<Vec<T>, LineError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(at, line)| {
        serde_json::from_str(line).map_err(|source| LineError { file: file.to_owned(), line: at + 1, source })
    };
    lines.map(read).collect()
}

/// A question of LLaVA's files.
#[derive(Debug, Clone, Deserialize)]
pub struct Question {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub question_id: String,
    /// The picture's file.
    #[serde(default)]
    pub image: Option<String>,
    /// All that is asked.
    pub text: String,
    /// The group that it is scored in.
    #[serde(default)]
    pub category: Option<String>,
}

/// An answer as LLaVA's scripts write it.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    /// The question's id.
    #[serde(deserialize_with = "id")]
    pub question_id: String,
    /// What was asked.
    #[serde(default)]
    pub prompt: String,
    /// What was answered.
    pub text: String,
}

/// An id, which some files have as a number.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(id) => Ok(id),
        serde_json::Value::Number(id) => Ok(id.to_string()),
        other => Err(serde::de::Error::custom(format!("{other} is no id; expected a string or a number"))),
    }
}

/// The string that is tokenized for a question.
pub fn prompt(question: &str, has_image: bool) -> String {
    let image = if has_image { "<image>\n" } else { "" };
    format!("{SYSTEM} USER: {image}{question} ASSISTANT:")
}

/// What the text tower reads.
pub fn guide(question: &str) -> String {
    text::strip(&question.replace("<image>", "")).to_owned()
}
