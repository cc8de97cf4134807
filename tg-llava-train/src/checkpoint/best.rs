use serde::{Deserialize, Serialize};

/// The checkpoint that scored best so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its optimizer step.
    pub step: usize,
    /// What was measured, such as `eval_loss`.
    pub metric: String,
    /// The score; finite. Whether more or less is better is the caller's to know.
    pub value: f64,
}
