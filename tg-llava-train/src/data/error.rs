//! What can go wrong with training data, always naming the file and the place in it.

use std::path::{Path, PathBuf};

use tg_llava_core::{conversation::ConversationError, preprocess::ImageError, tokenizer::TokenizerError};

/// A data file that cannot be used, or a sample in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The data file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is neither a JSON array of samples nor one sample a line.
    #[error("{path}, line {line}: {message}")]
    Layout {
        /// The data file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What was found and what was expected.
        message: String,
    },
    /// The file holds no sample at all.
    #[error("{path}: no samples; expected a JSON array of samples or one sample a line")]
    Empty {
        /// The data file.
        path: PathBuf,
    },
    /// One sample cannot be used.
    #[error("{path}, line {line}, sample {id}: {problem}")]
    Sample {
        /// The data file.
        path: PathBuf,
        /// Line on which the sample starts, from 1.
        line: u64,
        /// The sample's `id`, or `#n` (its place in the file, from 0) where it has none.
        id: String,
        /// What is wrong with it.
        problem: Box<SampleProblem>,
    },
    /// No sample of the file is left after the bad ones were skipped.
    #[error("{path}: all {count} samples were skipped; the first one: {first}")]
    AllBad {
        /// The data file.
        path: PathBuf,
        /// How many samples the file holds.
        count: usize,
        /// What was wrong with the first one.
        first: Box<DataError>,
    },
    /// The folder of the pictures is not there.
    #[error("{folder}: no such folder, but {path} has samples with pictures; set the image folder")]
    ImageFolder {
        /// The folder.
        folder: PathBuf,
        /// The data file.
        path: PathBuf,
    },
    /// Samples that fit the model one by one do not fit it together.
    #[error(transparent)]
    Together(#[from] tg_llava_core::multimodal::MultimodalError),
    /// A sample number that the data set does not have.
    #[error("{path}: there is no sample {index}; the file has {count}")]
    OutOfRange {
        /// The data file.
        path: PathBuf,
        /// The number asked for, from 0.
        index: usize,
        /// How many samples there are.
        count: usize,
    },
}

/// Why a sample cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleProblem {
    /// The sample's text is not JSON.
    #[error("not valid JSON at line {line}, column {column}: {message}")]
    Syntax {
        /// Line in the file, from 1.
        line: u64,
        /// Column, from 1.
        column: usize,
        /// What the parser said.
        message: String,
    },
    /// A field is missing or of the wrong kind.
    #[error("field `{field}` (line {line}): {message}")]
    Field {
        /// The field's path inside the sample, such as `conversations[1].from`.
        field: String,
        /// Line in the file, from 1.
        line: u64,
        /// What was found and what was expected.
        message: String,
    },
    /// The number of `<image>` marks in the text is not the number of pictures.
    #[error(
        "{marks} `<image>` in the conversation but {images} in `image`; write one `<image>` a picture, \
         and list every picture under `image`"
    )]
    ImageCount {
        /// `<image>` marks in all turns together.
        marks: usize,
        /// Pictures that the sample names.
        images: usize,
    },
    /// The template keeps fewer `<image>` than there are pictures.
    #[error(
        "the template keeps {kept} `<image>` for {images} pictures; put each `<image>` into a turn of its own"
    )]
    MergedMarks {
        /// Places for a picture among the ids.
        kept: usize,
        /// Pictures of the sample.
        images: usize,
    },
    /// Nothing to learn is left once the sample is cut to the model's length.
    #[error(
        "all that is to be learned lies behind the {max_length} tokens that are kept of its {tokens}, pictures \
         included; raise model.max_length or shorten the sample"
    )]
    Behind {
        /// Decoder tokens of the sample, its pictures' included.
        tokens: usize,
        /// Tokens that are kept.
        max_length: usize,
    },
    /// Text, pictures or guide do not fit the model.
    #[error(transparent)]
    Model(#[from] tg_llava_core::Error),
    /// A picture cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The conversation cannot be turned into ids and labels, or has no text to guide the picture's features.
    #[error(transparent)]
    Conversation(#[from] ConversationError),
    /// The guide text cannot be tokenized.
    #[error("guide text: {0}")]
    Guide(#[from] TokenizerError),
}

impl SampleProblem {
    /// Places the problem at a sample of a file.
    pub(super) fn at(self, path: &Path, line: u64, id: impl Into<String>) -> DataError {
        DataError::Sample { path: path.to_path_buf(), line, id: id.into(), problem: Box::new(self) }
    }
}

/// What to do with a sample that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadSample {
    /// Stop with the error.
    #[default]
    Error,
    /// Leave the sample out, and record it.
    Skip,
}
