//! What can be wrong with a tokenizer's files or with a text.

use std::path::{Path, PathBuf};

use crate::error::{short_json, shortened};

/// Why a tokenizer could not be built, or a text not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A JSON file does not parse, or a key has the wrong type.
    #[error("{path}: not valid JSON for a tokenizer: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// The folder holds none of the files a tokenizer is built from.
    #[error("{dir}: no tokenizer here; expected {expected}")]
    Missing {
        /// The folder.
        dir: PathBuf,
        /// The files that would do.
        expected: &'static str,
    },
    /// A file parses but does not describe a usable tokenizer.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The tokenizer refused a text.
    #[error("cannot tokenize {text:?}: {reason}")]
    Encode {
        /// The beginning of the text.
        text: String,
        /// What the tokenizer said.
        reason: String,
    },
    /// The tokenizer refused a list of ids.
    #[error("{path}: cannot turn ids into text: {reason}")]
    Decode {
        /// The file or folder of the tokenizer.
        path: PathBuf,
        /// What the tokenizer said.
        reason: String,
    },
}

impl TokenizerError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    pub(super) fn json(path: &Path, source: serde_json::Error) -> Self {
        Self::Json { path: path.to_path_buf(), source: short_json(source) }
    }

    pub(super) fn malformed(path: &Path, reason: impl Into<Reason>) -> Self {
        Self::Malformed { path: path.to_path_buf(), reason: reason.into().0 }
    }

    pub(super) fn encode(text: &str, reason: impl Into<Reason>) -> Self {
        Self::Encode { text: text.chars().take(60).collect(), reason: reason.into().0 }
    }
}

/// Why something failed, in our words or in those of the `tokenizers` crate.
pub(super) struct Reason(String);

impl From<String> for Reason {
    fn from(reason: String) -> Self {
        Self(shortened(&reason))
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<tokenizers::Error> for Reason {
    fn from(error: tokenizers::Error) -> Self {
        Self(shortened(&error.to_string()))
    }
}
