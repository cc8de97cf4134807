use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;

use crate::data::{DataPosition, Dealing, Micro};
use crate::parallel::World;
use crate::run::BatchStream;
use crate::start::TrainingData;

/// A run's samples as burn-train reads them: each call of `iter` gives the micro-batches of the next epoch, in its order.
///
/// Micro-batches are plain buffers, which the model takes to its device, so moving the loader moves nothing. Empty ones, whose
/// samples were all left out, are passed over.
#[derive(Debug)]
pub struct EpochLoader {
    data: Arc<TrainingData>,
    batch_size: usize,
    part: Range<usize>,
    epoch: AtomicU64,
}

impl EpochLoader {
    /// All samples of `data`, `batch_size` at a time, from the first epoch on.
    pub fn new(data: Arc<TrainingData>, batch_size: usize) -> Self {
        let part = 0..data.len();
        Self { data, batch_size, part, epoch: AtomicU64::new(0) }
    }

    fn part(&self, part: Range<usize>) -> Arc<dyn DataLoader<Micro>> {
        let epoch = AtomicU64::new(self.epoch.load(Ordering::Relaxed));
        Arc::new(Self { data: Arc::clone(&self.data), batch_size: self.batch_size, part, epoch })
    }
}

impl DataLoader<Micro> for EpochLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Micro> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        let start = DataPosition { epoch, sample: self.part.start };
        let dealing = Dealing::single(self.batch_size, 1);
        let stream = BatchStream::new(&self.data, dealing, World::SINGLE, (1, 2), start);
        Box::new(Epoch { stream, part: self.part.clone(), epoch })
    }

    fn num_items(&self) -> usize {
        self.part.len()
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<Micro>> {
        self.part(self.part.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Micro>> {
        let at = |place: usize| (self.part.start + place).min(self.part.end);
        self.part(at(start)..at(end))
    }
}

struct Epoch {
    stream: BatchStream,
    part: Range<usize>,
    epoch: u64,
}

impl Epoch {
    /// Samples of the part that were handed out.
    fn done(&self) -> usize {
        let position = self.stream.position();
        let sample = if position.epoch == self.epoch { position.sample } else { self.part.end };
        sample.min(self.part.end) - self.part.start
    }
}

impl Iterator for Epoch {
    type Item = Result<Micro, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.done() < self.part.len() {
            let micro = self.stream.next_micro();
            self.stream.end_step();
            match micro {
                Ok(Some(micro)) if !micro.is_empty() => return Some(Ok(micro)),
                Ok(_) => {}
                Err(error) => return Some(Err(DatasetError::new(error))),
            }
        }
        None
    }
}

impl DataLoaderIterator<Micro> for Epoch {
    fn progress(&self) -> Progress {
        Progress::new(self.done(), self.part.len(), Some("samples".to_owned()))
    }
}
