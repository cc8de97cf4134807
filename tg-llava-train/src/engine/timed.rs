//! How long a rank waits in collectives.

use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::parallel::{Collective, ParallelError, World};

/// Where the time of a rank's step went, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CollectiveTimes {
    /// From the end of one step to that of the next.
    pub step: f64,
    /// Within collectives, the waiting for slower ranks included.
    pub collectives: f64,
}

/// A collective with a clock.
pub(super) struct Timed {
    inner: Box<dyn Collective>,
    begin: Instant,
    spent: Duration,
}

impl Timed {
    pub fn new(inner: Box<dyn Collective>) -> Self {
        Self { inner, begin: Instant::now(), spent: Duration::ZERO }
    }

    /// Since the last call: a step, with what was gathered at the end of the one before.
    pub fn take_times(&mut self) -> CollectiveTimes {
        let step = std::mem::replace(&mut self.begin, Instant::now()).elapsed().as_secs_f64();
        let spent = std::mem::take(&mut self.spent).as_secs_f64();
        CollectiveTimes { step, collectives: self.inner.take_device_seconds().unwrap_or(spent) }
    }

    fn timed<T>(&mut self, call: impl FnOnce(&mut dyn Collective) -> T) -> T {
        let start = Instant::now();
        let result = call(self.inner.as_mut());
        self.spent += start.elapsed();
        result
    }
}

impl Collective for Timed {
    fn world(&self) -> World {
        self.inner.world()
    }

    fn transpose(&mut self, full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        self.timed(|inner| inner.transpose(full))
    }

    fn all_gather(
        &mut self,
        shards: Vec<Tensor<1>>,
        old: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        self.timed(|inner| inner.all_gather(shards, old))
    }

    fn sum_nodes(&mut self, shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        self.timed(|inner| inner.sum_nodes(shards))
    }

    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        self.timed(|inner| inner.exchange(bytes))
    }

    fn is_simulated(&self) -> bool {
        self.inner.is_simulated()
    }
}
