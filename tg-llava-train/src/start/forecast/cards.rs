use serde::Serialize;

use super::{Activations, ComponentStates, Workload};

/// Bytes of a CUDA device that are not there for tensors: its context, kernels and NCCL's buffers. Assumed.
pub const RESERVE: u64 = 2_500_000_000;

/// Share of what the states leave that activations may take, since they are estimates.
const USABLE: f64 = 0.9;

/// Largest micro-batch that is looked for.
const MOST: usize = 1 << 12;

/// A GPU by its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Card {
    /// What it is called.
    pub name: &'static str,
    /// Memory as its maker sells it, in GB.
    pub nominal_gb: u64,
    /// Memory as its driver shows it, in bytes.
    pub bytes: u64,
}

/// The cards that a forecast is made for.
pub const CARDS: [Card; 2] = [
    Card { name: "H100", nominal_gb: 80, bytes: 81_559 << 20 },
    Card { name: "H200", nominal_gb: 141, bytes: 143_771 << 20 },
];

/// The largest micro-batch of which each rank of `workload` can hold one on `card`; `None` where there is no room for one sample.
pub fn largest_micro_batch(workload: &Workload<'_>, card: Card) -> Option<usize> {
    let states: u64 = ComponentStates::of(workload).iter().map(ComponentStates::total).sum();
    let left = card.bytes.saturating_sub(RESERVE).saturating_sub(states);
    let fits = |&batch_size: &usize| {
        Activations::new(&Workload { batch_size, ..*workload }).peak() as f64 <= USABLE * left as f64
    };
    (1..=MOST).take_while(fits).last()
}
