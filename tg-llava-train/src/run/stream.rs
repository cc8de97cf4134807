//! The endless stream of micro-batches over the epochs of a run, from any sample on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::{DataError, DataPosition, Dealing, EpochBatches, Micro, Prefetch};
use crate::parallel::World;
use crate::parallel::watch::Progress;
use crate::start::TrainingData;

/// A rank's micro-batches, step after step, made ahead of the device.
pub struct BatchStream {
    slots: Prefetch<Slots, (DataPosition, Option<Result<Micro, DataError>>)>,
    samples: usize,
    position: DataPosition,
    /// Slots of the step under way that are left.
    left: usize,
    micro_batches: usize,
    waited: Duration,
}

impl BatchStream {
    /// The micro-batches after `position`, where a step begins, that are `world`'s; `workers` are the threads that make them and how
    /// many they may be ahead.
    pub fn new(
        data: &Arc<TrainingData>,
        dealing: Dealing,
        world: World,
        workers: (usize, usize),
        position: DataPosition,
    ) -> Self {
        let (threads, ahead) = workers;
        let (loader, model) = (Arc::clone(&data.loader), data.model.clone());
        let make = move |slot: Slot| {
            let micro = slot.indices.map(|indices| loader.micro(&indices, &model));
            Progress::of_process().tick();
            (slot.end, micro)
        };
        let slots = Slots::new(Arc::clone(data), dealing, world, position);
        Self {
            slots: Prefetch::new(make, slots, threads, ahead.max(1).saturating_mul(world.size())),
            samples: data.len(),
            position,
            left: dealing.micro_batches,
            micro_batches: dealing.micro_batches,
            waited: Duration::ZERO,
        }
    }

    /// This rank's next micro-batch of the step; it may be empty where its samples were skipped, and is `None` where the step has no
    /// more for this rank.
    ///
    /// # Errors
    /// [`DataError`] where a sample cannot be used.
    pub fn next_micro(&mut self) -> Result<Option<Micro>, DataError> {
        let start = Instant::now();
        let mut found = None;
        while let (None, true) = (&found, self.left > 0) {
            self.left -= 1;
            let Some((position, micro)) = self.slots.next() else { break };
            self.position = position;
            found = micro;
        }
        self.waited += start.elapsed();
        found.transpose()
    }

    /// Passes over what is left of the step; the next one begins.
    pub fn end_step(&mut self) {
        while self.left > 0
            && let Some((position, _)) = self.slots.next()
        {
            self.left -= 1;
            self.position = position;
        }
        self.left = self.micro_batches;
    }

    /// What has been consumed.
    pub fn position(&self) -> DataPosition {
        self.position
    }

    /// Epochs done, as a share.
    pub fn epochs(&self) -> f64 {
        self.position.epoch as f64 + self.position.sample as f64 / self.samples.max(1) as f64
    }

    /// Time spent waiting for data since the last call.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

/// A micro-batch's place in the run: where the data stand after it, and its samples, where it is this rank's.
struct Slot {
    end: DataPosition,
    indices: Option<Vec<usize>>,
}

/// All slots of a run, epoch after epoch.
struct Slots {
    data: Arc<TrainingData>,
    dealing: Dealing,
    world: World,
    epoch: u64,
    batches: EpochBatches,
    /// The next slot's number in its step.
    place: usize,
}

impl Slots {
    fn new(data: Arc<TrainingData>, dealing: Dealing, world: World, position: DataPosition) -> Self {
        let batches = EpochBatches::new(data.epoch(position.epoch), position.sample, dealing);
        Self { data, dealing, world, epoch: position.epoch, batches, place: 0 }
    }
}

impl Iterator for Slots {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        let indices = match self.batches.next() {
            Some(indices) => indices,
            None => {
                self.epoch += 1;
                self.batches = EpochBatches::new(self.data.epoch(self.epoch), 0, self.dealing);
                self.batches.next()?
            }
        };
        let place = self.place;
        self.place = (place + 1) % self.dealing.micro_batches;
        let end = DataPosition { epoch: self.epoch, sample: self.batches.consumed() };
        Some(Slot { end, indices: self.world.owns(place).then_some(indices) })
    }
}
