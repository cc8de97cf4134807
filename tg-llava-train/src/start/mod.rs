//! From a run's configuration to what it starts with: the model's sizes, its weights, tokenizers and samples.

mod data;
mod error;
mod forecast;
mod places;
mod setup;
mod weights;

pub use data::{TrainingData, open_data};
pub use error::StartError;
pub use forecast::{
    Activations, Assumptions, Attention, CARDS, Card, ComponentStates, MemoryForecast, RESERVE, StepForecast,
    Workload, available_memory, largest_micro_batch,
};
pub use setup::{Codecs, ModelSetup, preset_model};
pub use weights::{Started, load_weights};
