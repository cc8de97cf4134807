//! The order in which an epoch visits the samples.

use serde::{Deserialize, Serialize};

use super::{
    grouping::{Grouping, length_grouped_indices, modality_length_grouped_indices},
    random::Permutations,
};

/// How an epoch orders its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleOrder {
    /// As in the file.
    Sequential,
    /// Shuffled.
    #[default]
    Shuffled,
    /// Random, with batches of like length (`group_by_length`).
    Length,
    /// Random, with batches of one modality and of like length (`group_by_modality_length`).
    ModalityLength,
}

/// Gives each epoch's order as a function of the seed and the epoch alone.
///
/// Nothing of it needs to be saved: to resume, ask for the same epoch again and go on in it (see
/// [`EpochBatches`](super::EpochBatches)).
#[derive(Debug, Clone)]
pub struct Sampler {
    order: SampleOrder,
    lengths: Vec<i64>,
    grouping: Grouping,
    seed: u64,
}

impl Sampler {
    /// A sampler over samples of the given `lengths`: as
    /// [`LlavaDataset::modality_lengths`](super::LlavaDataset::modality_lengths) for [`SampleOrder::ModalityLength`],
    /// else as [`LlavaDataset::lengths`](super::LlavaDataset::lengths).
    pub fn new(order: SampleOrder, lengths: Vec<i64>, grouping: Grouping, seed: u64) -> Self {
        Self { order, lengths, grouping, seed }
    }

    /// The order of `epoch` (from 0): a permutation of all sample numbers.
    pub fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut permutations = Permutations::new(self.seed, epoch);
        let mut randperm = |n| permutations.permutation(n);
        match self.order {
            SampleOrder::Sequential => (0..self.lengths.len()).collect(),
            SampleOrder::Shuffled => randperm(self.lengths.len()),
            SampleOrder::Length => length_grouped_indices(&self.lengths, self.grouping, &mut randperm),
            SampleOrder::ModalityLength => {
                modality_length_grouped_indices(&self.lengths, self.grouping, &mut randperm)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GROUPING: Grouping = Grouping { batch_size: 3, chunks: 2 };

    proptest! {
        #[test]
        fn an_epoch_is_a_permutation_and_depends_on_seed_and_epoch_only(
            lengths in prop::collection::vec(prop_oneof![1i64..50, -50i64..-1], 20..60), seed: u64, epoch in 0u64..9,
        ) {
            use SampleOrder::{Length, ModalityLength, Sequential, Shuffled};
            for order in [Sequential, Shuffled, Length, ModalityLength] {
                let sampler = Sampler::new(order, lengths.clone(), GROUPING, seed);
                let first = sampler.epoch(epoch);
                prop_assert_eq!(&sampler.epoch(epoch), &first);
                prop_assert_eq!(sampler.epoch(epoch + 1) != first, order != Sequential);
                let mut sorted = first;
                sorted.sort_unstable();
                prop_assert!(sorted.into_iter().eq(0..lengths.len()));
            }
        }
    }
}
