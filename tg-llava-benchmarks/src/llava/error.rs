//! Files that cannot be used, or do not belong together.

use std::path::PathBuf;

use super::Id;
use crate::table::TableError;

/// A line that cannot be used.
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

/// Why questions, answers or annotations cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LlavaError {
    /// A line of a file.
    #[error(transparent)]
    Line(#[from] LineError),
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is laid out otherwise.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A question that cannot be used.
    #[error("{file}, {place}: {reason}")]
    Question {
        /// The file.
        file: String,
        /// Where in the file.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Annotations that are nowhere.
    #[error("no {wanted} in {places}")]
    Missing {
        /// What is needed.
        wanted: String,
        /// Where it was looked for.
        places: String,
    },
    /// Questions of which nothing says what benchmark they are.
    #[error("{file}: its name tells no benchmark")]
    Unnamed {
        /// The file of questions.
        file: String,
    },
    /// A file that asks nothing, so that there is nothing to score.
    #[error("{file}: no question")]
    NoQuestions {
        /// The file of questions.
        file: String,
    },
    /// An answer to no question.
    #[error(
        "{file}, line {line}: {questions} has no such question {id}; are these answers to another data set?"
    )]
    Foreign {
        /// The file of answers.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The question that it names.
        id: Id,
        /// The file of questions.
        questions: String,
    },
    /// More answers than questions.
    #[error("{file}, line {line}: question {id} has an answer further up; keep one of them")]
    Twice {
        /// The file of answers.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The question that it names.
        id: Id,
    },
    /// A question without an answer.
    #[error("{file}, {place}: question {id} has no answer; are these answers to another data set?")]
    Unanswered {
        /// The file of questions.
        file: String,
        /// Where in the file.
        place: String,
        /// The question.
        id: Id,
    },
    /// Annotations that say nothing about a question.
    #[error("{}: nothing about {what}; are these the annotations of another split?", path.display())]
    Unknown {
        /// The annotations.
        path: PathBuf,
        /// The question.
        what: String,
    },
}
