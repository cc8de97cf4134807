//! Pictures among text: where each token of a batch comes from, and the tensors that follow that plan.

mod error;
mod plan;
mod splice;

pub use error::MultimodalError;
pub use plan::{SplicePlan, SpliceRow, SpliceSettings, TokenSource};
pub use splice::splice;

/// Id in the text that stands for a picture.
pub const IMAGE_TOKEN_INDEX: i64 = -200;
