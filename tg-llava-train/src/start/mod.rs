//! From a run's configuration to what it starts with: the model's sizes, its weights, tokenizers and samples.

mod data;
mod error;
mod forecast;
mod places;
mod setup;
mod weights;

pub use data::{TrainingData, open_data};
pub use error::StartError;
pub use forecast::{MemoryForecast, available_memory};
pub use setup::{Codecs, ModelSetup};
pub use weights::{Started, load_weights};
