//! The endless stream of micro-batches over the epochs of a run, from any sample on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::{DataError, DataPosition, EpochBatches, Micro, Prefetch, Shard};
use crate::start::TrainingData;

type Made = Prefetch<EpochBatches, Result<Micro, DataError>>;

/// Micro-batches, epoch after epoch, made ahead of the device.
pub struct BatchStream<'a> {
    data: &'a TrainingData,
    batch_size: usize,
    threads: usize,
    ahead: usize,
    position: DataPosition,
    batches: Made,
    waited: Duration,
}

impl<'a> BatchStream<'a> {
    /// The batches after `position`.
    pub fn new(
        data: &'a TrainingData,
        batch_size: usize,
        threads: usize,
        ahead: usize,
        position: DataPosition,
    ) -> Self {
        let batches = open(data, batch_size, threads, ahead, position);
        Self { data, batch_size, threads, ahead, position, batches, waited: Duration::ZERO }
    }

    /// The next micro-batch; it may be empty where its samples were skipped.
    ///
    /// # Errors
    /// [`DataError`] where a sample cannot be used.
    pub fn next_micro(&mut self) -> Result<Micro, DataError> {
        let start = Instant::now();
        let batch = loop {
            match self.batches.next() {
                Some(batch) => break batch?,
                None => {
                    self.position = DataPosition { epoch: self.position.epoch + 1, sample: 0 };
                    let Self { data, batch_size, threads, ahead, position, .. } = *self;
                    self.batches = open(data, batch_size, threads, ahead, position);
                }
            }
        };
        self.waited += start.elapsed();
        let left = self.data.len() - self.position.sample;
        self.position.sample += left.min(self.batch_size);
        Ok(batch)
    }

    /// What has been consumed.
    pub fn position(&self) -> DataPosition {
        self.position
    }

    /// Epochs done, as a share.
    pub fn epochs(&self) -> f64 {
        self.position.epoch as f64 + self.position.sample as f64 / self.data.len().max(1) as f64
    }

    /// Time spent waiting for data since the last call.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

fn open(
    data: &TrainingData,
    batch_size: usize,
    threads: usize,
    ahead: usize,
    position: DataPosition,
) -> Made {
    let order = data.epoch(position.epoch);
    let batches = EpochBatches::new(order, position.sample, batch_size, Shard::SINGLE);
    let (loader, model) = (Arc::clone(&data.loader), data.model.clone());
    Prefetch::new(move |indices| loader.micro(indices, &model), batches, threads, ahead)
}
