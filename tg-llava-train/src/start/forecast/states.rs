use burn::tensor::DType;
use serde::Serialize;

use super::Workload;
use crate::config::Component;
use crate::parallel::ShardLayout;

/// Bytes that one rank holds of a component from the first step to the last. Exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ComponentStates {
    /// The component.
    pub component: Component,
    /// Weights in the format of the computation; every rank has them all.
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
        let (mut values, mut slices) = (0, 0);
        for (_, info) in workload.table.iter().filter(|(_, info)| info.component == component) {
            values += info.count() as u64;
            if info.trains {
                slices += ShardLayout { count: info.count(), ranks }.len() as u64;
            }
        }
        Self {
            component,
            weights: values * dtype.size() as u64,
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
