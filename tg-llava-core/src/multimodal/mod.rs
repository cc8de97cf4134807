//! Pictures among text: the plan of where each token of a batch comes from. No tensors;
//! [`splice`](crate::llm::splice) follows it.

mod error;
mod plan;

pub use error::MultimodalError;
pub use plan::{SplicePlan, SpliceRow, SpliceSettings, TokenSource};

/// Id in the text that stands for a picture.
pub const IMAGE_TOKEN_INDEX: i64 = -200;
