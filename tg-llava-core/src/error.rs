//! One error for the whole library; each concept brings its own kind.

use std::path::{Path, PathBuf};

use crate::{
    conversation::ConversationError, multimodal::MultimodalError, nn::LossError, preprocess::ImageError,
    tokenizer::TokenizerError, weights::WeightsError,
};

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong with outside data: files, pictures, text and settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A JSON file does not parse or lacks a key.
    #[error("{path}: not valid JSON for this use: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// A setting or a combination of settings that cannot work.
    #[error("configuration: {0}")]
    Config(String),
    /// A request to the model that cannot be served, such as a prompt longer than the context.
    #[error("{0}")]
    Request(String),
    /// A picture that cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A conversation or template that cannot be used.
    #[error(transparent)]
    Conversation(#[from] ConversationError),
    /// A tokenizer that cannot be built or used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A checkpoint that cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A batch whose text and pictures do not fit together.
    #[error(transparent)]
    Multimodal(#[from] MultimodalError),
    /// Labels that give no loss.
    #[error(transparent)]
    Loss(#[from] LossError),
}

impl Error {
    /// An I/O error at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A JSON error in `path`.
    pub fn json(path: impl AsRef<Path>, source: serde_json::Error) -> Self {
        Self::Json { path: path.as_ref().to_path_buf(), source: short_json(source) }
    }
}

/// Characters of outside data that a message repeats at most.
const REPEATED: usize = 400;

/// `text` without its middle, where it is long: messages repeat what a file holds, which may be megabytes.
pub(crate) fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= REPEATED {
        return text.to_owned();
    }
    let head: String = text.chars().take(REPEATED / 2).collect();
    let tail: String = text.chars().skip(count - REPEATED / 4).collect();
    format!("{head} [...] {tail}")
}

/// A parser's error, shortened; what comes last is the line and the column.
pub(crate) fn short_json(error: serde_json::Error) -> serde_json::Error {
    let text = error.to_string();
    if text.len() <= REPEATED {
        return error;
    }
    serde::de::Error::custom(shortened(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_repeat_little_of_what_a_file_holds() {
        let text = format!("{{\"a\": \n \"{}\"}}", "é".repeat(200_000));
        let source = serde_json::from_str::<std::collections::BTreeMap<String, u8>>(&text).unwrap_err();
        let message = Error::json("config.json", source).to_string();
        assert!(message.len() < 1000, "{} bytes", message.len());
        assert!(message.starts_with("config.json: ") && message.contains("line 2"), "{message}");
        assert_eq!(shortened("short"), "short");
    }
}
