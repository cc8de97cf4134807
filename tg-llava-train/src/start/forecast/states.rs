use burn::tensor::DType;
use serde::Serialize;
use tg_llava_core::weights::is_block_matrix;

use super::Workload;
use crate::config::{BaseFormat, Component};
use crate::parallel::ShardLayout;

/// Bytes that one rank holds of a component from the first step to the last. Exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ComponentStates {
    /// The component.
    pub component: Component,
    /// Weights in the format that they are held in; every rank has them all.
    pub weights: u64,
    /// This rank's slices of the weights in f32, where the computation has fewer bits.
    pub master_weights: u64,
    /// Its slices of the gradients, in f32.
    pub gradients: u64,
    /// Its slices of AdamW's two moments, in f32.
    pub moments: u64,
}

impl ComponentStates {
    /// The components that the model has, in the order of the data flow.
    pub(super) fn of(workload: &Workload<'_>) -> Vec<Self> {
        let of = |component| Self::new(component, workload);
        Component::ALL.into_iter().map(of).filter(|states| states.weights > 0).collect()
    }

    fn new(component: Component, workload: &Workload<'_>) -> Self {
        let (dtype, ranks) = (workload.dtype, workload.world.local_size());
        let (mut weights, mut slices) = (0, 0);
        let base = workload.config.lora.as_ref().map_or(BaseFormat::Float, |lora| lora.base);
        for (_, info) in workload.table.iter().filter(|(_, info)| info.component == component) {
            weights += match info.shape[..] {
                [d_input, d_output] if is_block_matrix(&info.key) => {
                    base.bytes([d_input, d_output], dtype.size())
                }
                _ => (info.count() * dtype.size()) as u64,
            };
            if info.trains {
                slices += ShardLayout { count: info.count(), ranks }.len() as u64;
            }
        }
        Self {
            component,
            weights,
            master_weights: if dtype == DType::F32 { 0 } else { 4 * slices },
            gradients: 4 * slices,
            moments: 8 * slices,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.master_weights + self.gradients + self.moments
    }
}
