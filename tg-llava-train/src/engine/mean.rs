//! How the losses of a step's micro-batches become one.

use serde::{Deserialize, Serialize};

/// What a step's loss is the mean over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossMean {
    /// The micro-batches, each with the mean over its own supervised tokens: a token of a short answer counts more
    /// than one of a long answer. As the HF Trainer of the reference, without distribution.
    #[default]
    MicroBatches,
    /// All supervised tokens of the step, as if it were one batch.
    Tokens,
}

/// Tokens that count as one micro-batch in [`LossMean::Tokens`]; a power of two, so that it rounds nothing.
const TOKENS: f64 = 256.0;

impl LossMean {
    /// What the mean loss of a micro-batch with `supervised` tokens counts in the step's. Only how the weights of a step are to one
    /// another matters.
    pub fn weight(self, supervised: usize) -> f64 {
        match self {
            Self::MicroBatches => 1.0,
            Self::Tokens => supervised as f64 / TOKENS,
        }
    }
}
