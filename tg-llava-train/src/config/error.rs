//! What can be wrong with a run's configuration.

use std::path::PathBuf;

/// A configuration that cannot be used; the message says where and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("{name}, line {line}, column {column}: not valid TOML: {message}")]
    Syntax {
        /// The file.
        name: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What the parser said.
        message: String,
    },
    /// A key that does not exist.
    #[error("{place}: unknown key `{key}`; {hint}")]
    UnknownKey {
        /// File and line, or the assignment.
        place: String,
        /// The key with its tables, such as `optim.learning_rat`.
        key: String,
        /// The nearest key there is, or all keys of the table.
        hint: String,
    },
    /// A value of the wrong kind.
    #[error("{place}: `{key}`: {message}")]
    Value {
        /// File and line, or the assignment.
        place: String,
        /// The key with its tables.
        key: String,
        /// What was found and what was expected.
        message: String,
    },
    /// `--set` with something that is no assignment.
    #[error("--set {text}: write it as key=value, for example optim.lr=2e-5")]
    Assignment {
        /// What was given.
        text: String,
    },
    /// A table put together by a program does not describe a run.
    #[error("the configuration cannot be used: {message}")]
    Table {
        /// What was found and what was expected.
        message: String,
    },
    /// A value that every run needs was not given.
    #[error("`{key}` is not set: {what}")]
    Missing {
        /// The key with its tables.
        key: &'static str,
        /// What it is for.
        what: &'static str,
    },
    /// A value outside its range, or at odds with another one.
    #[error("`{key}`: {message}")]
    Invalid {
        /// The key with its tables.
        key: String,
        /// What was found and what was expected.
        message: String,
    },
    /// One of LLaVA's flags cannot be used.
    #[error("{flag}: {message}")]
    Flag {
        /// The flag, with its dashes.
        flag: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A run has no form in TOML.
    #[error("the configuration cannot be written as TOML: {0}")]
    Write(#[from] toml::ser::Error),
}
