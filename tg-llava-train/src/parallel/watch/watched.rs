use burn::tensor::Tensor;

use super::Progress;
use crate::parallel::{Collective, ParallelError, World};

/// A collective whose use can be seen from outside while it lasts.
#[derive(Debug)]
pub struct Watched<C> {
    inner: C,
    progress: Progress,
}

impl<C: Collective> Watched<C> {
    pub(super) fn new(inner: C, progress: Progress) -> Self {
        Self { inner, progress }
    }
}

impl<C: Collective> Collective for Watched<C> {
    fn world(&self) -> World {
        self.inner.world()
    }

    fn transpose(&mut self, full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        let _inside = self.progress.collective();
        self.inner.transpose(full)
    }

    fn all_gather(
        &mut self,
        shards: Vec<Tensor<1>>,
        old: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        let _inside = self.progress.collective();
        self.inner.all_gather(shards, old)
    }

    fn sum_nodes(&mut self, shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        let _inside = self.progress.collective();
        self.inner.sum_nodes(shards)
    }

    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        let _inside = self.progress.collective();
        self.inner.exchange(bytes)
    }

    fn take_device_seconds(&mut self) -> Option<f64> {
        self.inner.take_device_seconds()
    }

    fn is_simulated(&self) -> bool {
        self.inner.is_simulated()
    }
}
