//! Optimisation: gradients by parameter path, global-norm clipping, and AdamW with f32 state.

mod adamw;
mod gradients;
mod groups;

pub use adamw::{AdamW, AdamWConfig};
pub use gradients::ParameterGradients;
pub use groups::{DecayRule, ParameterSettings, decays};
