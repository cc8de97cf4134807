//! What can go wrong while data are prepared.

use std::path::{Path, PathBuf};

use tg_llava_core::conversation::ConversationError;

use tg_llava_train::data::DataError;

/// Why data could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// An input could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An output could not be written.
    #[error("{path}: cannot be written: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The input is no package of the data set.
    #[error("{path}: not the easy-vqa package: {reason}")]
    NotThePackage {
        /// The file or folder.
        path: PathBuf,
        /// What was found and what is expected.
        reason: String,
    },
    /// Something inside the package cannot be used.
    #[error("{package}: {entry}: {reason}")]
    Entry {
        /// The wheel or folder.
        package: PathBuf,
        /// The file inside it.
        entry: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The output folder holds something already.
    #[error(
        "{path}: the folder is not empty; name another one, or replace what stands in the way there ({entries})"
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// The files and folders that would be written, separated by commas.
        entries: String,
    },
    /// The output folder has no name of its own, as `/` has none.
    #[error("{path}: this cannot be an output folder; name a folder to create")]
    NoName {
        /// The folder.
        path: PathBuf,
    },
    /// A vocabulary too small for its special tokens and the bytes of any text.
    #[error(
        "a vocabulary of {asked} for the {which} is too small: its special tokens and single bytes alone are {least}"
    )]
    VocabularyTooSmall {
        /// Which tokenizer: `decoder` or `guide`.
        which: &'static str,
        /// The size asked for.
        asked: usize,
        /// The smallest size that works.
        least: usize,
    },
    /// The training data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The template cannot write a sample's conversation.
    #[error("{path}, line {line}, sample {id}: {source}")]
    Conversation {
        /// The data file.
        path: PathBuf,
        /// Line on which the sample starts, from 1.
        line: u64,
        /// The sample's `id`.
        id: String,
        /// What is wrong with it.
        source: ConversationError,
    },
    /// A tokenizer could not be trained.
    #[error("the {which}'s tokenizer: {reason}")]
    Tokenizer {
        /// Which tokenizer: `decoder` or `guide`.
        which: &'static str,
        /// What the `tokenizers` crate said.
        reason: String,
    },
}

impl PrepareError {
    pub(super) fn read(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Read { path: path.as_ref().to_path_buf(), source }
    }

    pub(super) fn write(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Write { path: path.as_ref().to_path_buf(), source }
    }
}
