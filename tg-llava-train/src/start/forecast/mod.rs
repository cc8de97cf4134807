//! What a run will need of memory and time, before it takes any.
//!
//! What shapes decide is exact: weights, gradients and optimizer state. Activations, logits, traffic and time follow from plain
//! formulas, whose assumptions stand beside them.

mod activations;
mod cards;
mod host;
mod memory;
mod states;
mod step;
#[cfg(test)]
mod tests;

use burn::tensor::DType;
use serde::Serialize;
use tg_llava_core::config::ModelConfig;

pub use activations::Activations;
pub use cards::{CARDS, Card, RESERVE, largest_micro_batch};
pub use host::available_memory;
pub use memory::MemoryForecast;
pub use states::ComponentStates;
pub use step::{Assumptions, StepForecast};

use crate::config::TrainConfig;
use crate::engine::ParameterTable;
use crate::parallel::World;

/// A run whose needs are forecast.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'a> {
    /// The run.
    pub config: &'a TrainConfig,
    /// Its model.
    pub model: &'a ModelConfig,
    /// The model's parameters.
    pub table: &'a ParameterTable,
    /// Format of the computation.
    pub dtype: DType,
    /// The ranks that train together.
    pub world: World,
    /// How attention is computed.
    pub attention: Attention,
    /// Samples of a micro-batch.
    pub batch_size: usize,
    /// Decoder tokens of its longest row.
    pub length: usize,
}

/// What attention leaves in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// Scores of all pairs of positions, as today.
    WrittenOut,
    /// Nothing that grows with the square of the length.
    Fused,
}

impl Attention {
    /// Both.
    pub const ALL: [Self; 2] = [Self::WrittenOut, Self::Fused];
}
