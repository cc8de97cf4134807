/// A batch whose text, pictures and labels do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MultimodalError {
    /// Another number of `<image>` marks than of pictures.
    #[error(
        "row {row} has {placeholders} <image> mark(s) and {images} picture(s); give one picture for each mark"
    )]
    ImageCount {
        /// Row of the batch.
        row: usize,
        /// Marks in its text.
        placeholders: usize,
        /// Pictures given.
        images: usize,
    },
    /// Labels that are not one for each id.
    #[error("row {row} has {ids} ids and {labels} labels; there must be one label for each id")]
    LabelCount {
        /// Row of the batch.
        row: usize,
        /// Number of ids.
        ids: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A token that the decoder does not know.
    #[error(
        "row {row}: token id {id} is outside the vocabulary of {vocab_size}; do tokenizer and model belong together?"
    )]
    TokenOutOfRange {
        /// Row of the batch.
        row: usize,
        /// The id.
        id: i64,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A row without any token.
    #[error("row {row} is empty; a prompt needs at least one token")]
    EmptyRow {
        /// Row of the batch.
        row: usize,
    },
    /// Pictures in a model that has no vision tower.
    #[error("this checkpoint has no vision tower, so it cannot see pictures")]
    NoVisionTower,
}
