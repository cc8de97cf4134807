//! Text towers: the guide text in, its hidden states and pooled state out.

mod input;
mod tower;

pub use input::GuideInput;
pub use tower::{TextFeatures, TextTower};
