//! Cuts an epoch's order into batches and deals them out to devices, as the HF Trainer does.

use serde::{Deserialize, Serialize};

/// Which of several devices that train together this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// This device, from 0.
    pub rank: usize,
    /// How many devices there are, at least 1.
    pub world: usize,
}

impl Shard {
    /// One device alone.
    pub const SINGLE: Self = Self { rank: 0, world: 1 };
}

/// How far the data have been consumed; all that a checkpoint must hold to go on with the next sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataPosition {
    /// The epoch under way, from 0.
    pub epoch: u64,
    /// Samples of that epoch consumed by all devices together.
    pub sample: usize,
}

/// The batches of one device in one epoch, from any sample on.
///
/// Batch `i` of the order goes to device `i % world`. One device alone ends with a short batch where the
/// samples do not divide; several fill up with samples from the start of the order, so that all of them see
/// the same number of full batches.
#[derive(Debug, Clone)]
pub struct EpochBatches {
    order: Vec<usize>,
    batch_size: usize,
    shard: Shard,
    next: usize,
    end: usize,
}

impl EpochBatches {
    /// The batches of `order` after its first `consumed` samples.
    ///
    /// `consumed` may be any number, so that a run may go on with another batch size or device count.
    pub fn new(order: Vec<usize>, consumed: usize, batch_size: usize, shard: Shard) -> Self {
        let (batch_size, world) = (batch_size.max(1), shard.world.max(1));
        let left = order.len().saturating_sub(consumed);
        let left = if world > 1 { left.next_multiple_of(batch_size * world) } else { left };
        Self { order, batch_size, shard: Shard { world, ..shard }, next: consumed, end: consumed + left }
    }

    /// Samples of the epoch that all devices together will have consumed once the batches returned so far are
    /// done; for [`DataPosition::sample`].
    pub fn consumed(&self) -> usize {
        self.next.min(self.end)
    }
}

impl Iterator for EpochBatches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        if self.next >= self.end {
            return None;
        }
        let first = self.next + self.shard.rank * self.batch_size;
        let last = (first + self.batch_size).min(self.end);
        self.next += self.shard.world * self.batch_size;
        Some((first..last).map(|at| self.order[at % self.order.len()]).collect())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next).div_ceil(self.batch_size * self.shard.world);
        (left, Some(left))
    }
}

impl ExactSizeIterator for EpochBatches {}

/// How many optimizer steps a run makes: `ceil(epochs * max(1, batches / accumulation))`.
///
/// `batches` is the number of batches of one device in an epoch. As in the HF Trainer the batches that do not
/// fill an accumulation go on into the next epoch's first step, and those at the end of the run are left.
pub fn optimizer_steps(batches: usize, accumulation: usize, epochs: f64) -> usize {
    let per_epoch = (batches / accumulation.max(1)).max(1);
    (epochs * per_epoch as f64).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batches(
        count: usize,
        consumed: usize,
        batch_size: usize,
        rank: usize,
        world: usize,
    ) -> Vec<Vec<usize>> {
        EpochBatches::new((0..count).collect(), consumed, batch_size, Shard { rank, world }).collect()
    }

    #[test]
    fn one_device_ends_short_and_several_wrap_around() {
        assert_eq!(batches(5, 0, 2, 0, 1), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(batches(5, 0, 2, 0, 2), [vec![0, 1], vec![4, 0]]);
        assert_eq!(batches(5, 0, 2, 1, 2), [vec![2, 3], vec![1, 2]]);
        // Fewer samples than the devices need: around again and again.
        assert_eq!(batches(3, 0, 4, 1, 2), [vec![1, 2, 0, 1]]);
        assert!(batches(5, 5, 2, 0, 2).is_empty());
        assert!(batches(0, 0, 2, 1, 2).is_empty());
    }

    #[test]
    fn steps_follow_the_trainer() {
        assert_eq!(optimizer_steps(7, 2, 1.0), 3);
        assert_eq!(optimizer_steps(7, 2, 2.5), 8);
        assert_eq!(optimizer_steps(1, 4, 3.0), 3);
    }

    proptest! {
        #[test]
        fn the_devices_cover_the_epoch_from_any_sample_on(
            count in 1usize..60, consumed in 0usize..60, batch_size in 1usize..6, world in 1usize..5,
        ) {
            let consumed = consumed.min(count);
            let ranks: Vec<_> = (0..world).map(|rank| batches(count, consumed, batch_size, rank, world)).collect();
            prop_assert!(ranks.iter().all(|r| r.len() == ranks[0].len()));
            let mut seen = Vec::new();
            for at in 0..ranks[0].len() {
                ranks.iter().for_each(|rank| seen.extend(rank[at].iter().copied()));
            }
            let fresh = count - consumed;
            prop_assert!(seen.iter().copied().take(fresh).eq(consumed..count));
            prop_assert!(seen.len() < fresh + batch_size * world);
        }

        #[test]
        fn stopping_and_going_on_changes_nothing(count in 0usize..60, stop in 0usize..20, batch_size in 1usize..6) {
            let order: Vec<usize> = (0..count).rev().collect();
            let mut batches = EpochBatches::new(order.clone(), 0, batch_size, Shard::SINGLE);
            let whole: Vec<_> = batches.clone().collect();
            prop_assert_eq!(whole.len(), batches.len());
            let mut seen: Vec<_> = batches.by_ref().take(stop).collect();
            seen.extend(EpochBatches::new(order, batches.consumed(), batch_size, Shard::SINGLE));
            prop_assert_eq!(seen, whole);
        }
    }
}
