//! Cuts an epoch's order into micro-batches, the same for any number of devices.

use serde::{Deserialize, Serialize};

/// How many samples make a micro-batch, and how many of these an optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dealing {
    /// Samples of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of an optimizer step, over all devices.
    pub micro_batches: usize,
    /// An epoch is filled up to a multiple of so many samples, with those at the start of its order.
    pub fill: usize,
}

impl Dealing {
    /// Micro-batches of a step on one device, which takes an epoch as it is.
    pub fn single(batch_size: usize, micro_batches: usize) -> Self {
        Self { batch_size, micro_batches, fill: 1 }
    }

    /// How many optimizer steps a run over `samples` samples makes: `ceil(epochs * max(1, batches / micro_batches))`.
    ///
    /// As in the HF Trainer the micro-batches that do not fill a step go on into the next epoch's first step, and those
    /// at the end of the run are left.
    pub fn steps(self, samples: usize, epochs: f64) -> usize {
        let batches = samples.next_multiple_of(self.fill.max(1)).div_ceil(self.batch_size.max(1));
        let per_epoch = (batches / self.micro_batches.max(1)).max(1);
        (epochs * per_epoch as f64).ceil() as usize
    }
}

/// How far the data have been consumed; all that a checkpoint must hold to go on with the next sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataPosition {
    /// The epoch under way, from 0.
    pub epoch: u64,
    /// Samples of that epoch consumed by all devices together.
    pub sample: usize,
}

/// The micro-batches of all devices in one epoch, from any sample on; the last is short where the samples do not divide.
#[derive(Debug, Clone)]
pub struct EpochBatches {
    order: Vec<usize>,
    batch_size: usize,
    next: usize,
    end: usize,
}

impl EpochBatches {
    /// The micro-batches of `order` after its first `consumed` samples.
    ///
    /// `consumed` may be any number, so that a run may go on with another batch size.
    pub fn new(order: Vec<usize>, consumed: usize, dealing: Dealing) -> Self {
        let left = order.len().saturating_sub(consumed).next_multiple_of(dealing.fill.max(1));
        Self { order, batch_size: dealing.batch_size.max(1), next: consumed, end: consumed + left }
    }

    /// Samples of the epoch that will have been consumed once the micro-batches returned so far are done; for
    /// [`DataPosition::sample`].
    pub fn consumed(&self) -> usize {
        self.next.min(self.order.len())
    }
}

impl Iterator for EpochBatches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let range = self.next..(self.next + self.batch_size).min(self.end);
        self.next = range.end;
        (!range.is_empty()).then(|| range.map(|at| self.order[at % self.order.len()]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batches(count: usize, consumed: usize, dealing: Dealing) -> Vec<Vec<usize>> {
        EpochBatches::new((0..count).collect(), consumed, dealing).collect()
    }

    #[test]
    fn an_epoch_ends_short_or_is_filled_from_its_start() {
        let dealing = |fill| Dealing { batch_size: 2, micro_batches: 2, fill };
        assert_eq!(batches(5, 0, dealing(1)), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(batches(5, 0, dealing(4)), [vec![0, 1], vec![2, 3], vec![4, 0], vec![1, 2]]);
        // Fewer samples than a step has: around again and again.
        assert_eq!(batches(1, 0, dealing(4)), [[0, 0], [0, 0]]);
        assert!(batches(5, 5, dealing(4)).is_empty());
        assert!(batches(0, 0, dealing(4)).is_empty());
    }

    #[test]
    fn steps_follow_the_trainer() {
        let steps = |batches, micro_batches, epochs| Dealing::single(1, micro_batches).steps(batches, epochs);
        assert_eq!(steps(7, 2, 1.0), 3);
        assert_eq!(steps(7, 2, 2.5), 8);
        assert_eq!(steps(1, 4, 3.0), 3);
        // The published runs: 558,128 samples at 256 a step, 665,298 at 128.
        let published = |samples| Dealing { batch_size: 16, micro_batches: samples / 16, fill: samples };
        assert_eq!(published(256).steps(558_128, 1.0), 2181);
        assert_eq!(published(128).steps(665_298, 1.0), 5198);
    }

    proptest! {
        #[test]
        fn an_epoch_is_covered_from_any_sample_on(
            count in 1usize..60, consumed in 0usize..60, batch_size in 1usize..6, fill in 1usize..20,
        ) {
            let consumed = consumed.min(count);
            let seen: Vec<usize> =
                batches(count, consumed, Dealing { batch_size, micro_batches: 1, fill }).concat();
            let fresh = count - consumed;
            prop_assert!(seen.iter().copied().take(fresh).eq(consumed..count));
            prop_assert!(seen.len() < fresh + fill && seen.len().is_multiple_of(fill));
        }

        #[test]
        fn stopping_and_going_on_changes_nothing(
            count in 0usize..60, stop in 0usize..20, batch_size in 1usize..6, micro_batches in 1usize..5,
        ) {
            let order: Vec<usize> = (0..count).rev().collect();
            // Runs stop between steps, where what was consumed is a multiple of the fill or all there is.
            let (fill, stop) = (batch_size * micro_batches, stop * micro_batches);
            let dealing = Dealing { batch_size, micro_batches, fill };
            let mut batches = EpochBatches::new(order.clone(), 0, dealing);
            let whole: Vec<_> = batches.clone().collect();
            let mut seen: Vec<_> = batches.by_ref().take(stop).collect();
            seen.extend(EpochBatches::new(order, batches.consumed(), dealing));
            prop_assert_eq!(seen, whole);
        }
    }
}
