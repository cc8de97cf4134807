//! Optimisation: gradients and optimizer states by parameter path, global-norm clipping, and AdamW with f32 state.

mod adamw;
mod gradients;
mod groups;
mod norm;
mod states;

pub use adamw::{AdamW, AdamWConfig, AdamWState};
pub use gradients::ParameterGradients;
pub use groups::{DecayRule, ParameterSettings, decays};
pub use norm::{read, squares};
pub use states::{OptimizerStates, Update};
