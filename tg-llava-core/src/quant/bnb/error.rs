/// A tensor of bitsandbytes whose parts do not fit together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BnbError {
    /// The state does not parse or lacks a key.
    #[error("its quant_state is not valid JSON for this use: {0}")]
    State(serde_json::Error),
    /// A part has the wrong length.
    #[error("its {part} has {found} values, but shape and block size ask for {expected}")]
    Length {
        /// The part: `weight`, `absmax` and so on.
        part: &'static str,
        /// Values that are right.
        expected: usize,
        /// Values in the file.
        found: usize,
    },
    /// Blocks without values.
    #[error("its quant_state has a block size of 0")]
    EmptyBlocks,
    /// A shape that does not fit into memory.
    #[error("its shape {shape:?} is too large")]
    TooLarge {
        /// Extents.
        shape: Vec<usize>,
    },
    /// Absmax of one form, and a state that describes the other.
    #[error("its absmax is stored as {stored}, but its quant_state describes {described}")]
    AbsmaxForm {
        /// What is in the file.
        stored: &'static str,
        /// What the state says.
        described: &'static str,
    },
}
