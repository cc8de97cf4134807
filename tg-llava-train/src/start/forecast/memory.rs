use serde::Serialize;

use super::{Activations, ComponentStates, Workload};

/// Bytes that one rank takes, by what they are for. States are exact; the rest is estimated, some tens of percent off either way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryForecast {
    /// Weights, gradients and optimizer state of each component.
    pub states: Vec<ComponentStates>,
    /// What a micro-batch takes on its way.
    pub activations: Activations,
    /// Pictures on the host: of the micro-batch under way, and of those that wait for their turn, in f32.
    pub pictures: u64,
}

impl MemoryForecast {
    /// The forecast for one rank.
    pub fn new(workload: &Workload<'_>) -> Self {
        Self {
            states: ComponentStates::of(workload),
            activations: Activations::new(workload),
            pictures: pictures(workload) as u64,
        }
    }

    /// Bytes on the rank's device, without what the device itself takes.
    pub fn on_device(&self) -> u64 {
        self.state_bytes().saturating_add(self.activations.peak())
    }

    /// Bytes on a machine whose device is its processor.
    pub fn total(&self) -> u64 {
        self.on_device().saturating_add(self.pictures)
    }

    /// Bytes of weights, gradients and optimizer state.
    pub fn state_bytes(&self) -> u64 {
        self.states.iter().map(ComponentStates::total).sum()
    }
}

/// Bytes of the pixels of micro-batches whose samples all have one picture.
fn pictures(workload: &Workload<'_>) -> f64 {
    let Some(mm) = &workload.model.multimodal else { return 0.0 };
    let samples = (1 + workload.config.data.prefetch) as f64 * workload.batch_size as f64;
    let views = if mm.detail.is_some() { 5.0 } else { 1.0 };
    samples * views * 3.0 * (mm.vision.image_size as f64).powi(2) * 4.0
}
