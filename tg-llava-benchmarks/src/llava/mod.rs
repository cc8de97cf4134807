//! Benchmarks as LLaVA-1.5's own scripts ask and score them (commit c121f043).

mod annotations;
pub mod bench;
mod benchmark;
pub mod choice;
mod error;
pub mod gqa;
mod id;
pub mod mmbench;
pub mod mme;
pub mod pope;
mod questions;
mod scored;
pub mod seed;
pub mod upload;
pub mod vqa;

pub use annotations::Annotations;
pub use benchmark::Benchmark;
pub use error::{LineError, LlavaError};
pub use id::Id;
pub use questions::{Answer, Answers, Question, Questions};
pub use scored::Scored;

use serde::Deserialize;

use crate::text;

/// Before every question: the system text of `vicuna_v1`.
const SYSTEM: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and \
                      polite answers to the user's questions.";

/// What asks for a letter.
pub const LETTER: &str = "Answer with the option's letter from the given choices directly.";

/// Reads one value a line; `file` is what errors call it.
///
/// # Errors
/// [`LineError`] where a line is no such value.
pub fn read_lines<T: for<'a> Deserialize<'a>>(text: &str, file: &str) -> Result<Vec<T>, LineError> {
    Ok(numbered_lines(text, file)?.into_iter().map(|(_, value)| value).collect())
}

/// Values with their lines, from 1.
///
/// # Errors
/// As [`read_lines`].
pub fn numbered_lines<T: for<'a> Deserialize<'a>>(
    text: &str,
    file: &str,
) -> Result<Vec<(usize, T)>, LineError> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let read = |(text, line)| {
        let value = serde_json::from_str(text);
        value.map(|value| (line, value)).map_err(|source| LineError { file: file.to_owned(), line, source })
    };
    lines.map(read).collect()
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

/// A percentage as reports print it, with two decimals.
fn two_decimals(value: f64) -> f64 {
    format!("{value:.2}").parse().unwrap_or(value)
}
