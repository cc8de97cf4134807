//! The bridges between text and vision: the paper's two contributions.

mod detail_perceiver;
mod feature_guide;
mod perceiver;
mod qformer;

pub use detail_perceiver::DetailPerceiver;
pub use feature_guide::FeatureGuide;
pub use perceiver::{Perceiver, PerceiverAttention, PerceiverLayer};
pub use qformer::{QFormer, QFormerAttention, QFormerFeedForward, QFormerLayer};
