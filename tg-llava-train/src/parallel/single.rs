use burn::tensor::Tensor;

use super::{Collective, ParallelError, World};

/// One rank alone: everything is its own already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl Collective for Single {
    fn world(&self) -> World {
        World::SINGLE
    }

    fn transpose(&mut self, full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        Ok(full)
    }

    fn all_gather(
        &mut self,
        shards: Vec<Tensor<1>>,
        _old: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        Ok(shards)
    }

    fn sum_nodes(&mut self, shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        Ok(shards)
    }

    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        Ok(vec![bytes.to_vec()])
    }
}
