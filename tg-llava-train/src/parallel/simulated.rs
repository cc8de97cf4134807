use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use burn::tensor::Tensor;

use super::{Collective, ParallelError, World};

/// One rank that only imagines the others: it does the work and holds the memory that the rank would, so that a single device tells
/// what each of many would need. Whatever another rank would have sent is its own over again, so the numbers mean nothing.
#[derive(Debug, Clone)]
pub struct Simulated {
    world: World,
    traffic: Arc<Traffic>,
}

/// What a rank would send to others, counted while it runs.
#[derive(Debug, Default)]
pub struct Traffic {
    /// [`Collective::transpose`].
    pub transpose: Sent,
    /// [`Collective::all_gather`].
    pub all_gather: Sent,
    /// [`Collective::sum_nodes`].
    pub sum_nodes: Sent,
    /// [`Collective::exchange`].
    pub exchange: Sent,
}

/// What went through one collective.
#[derive(Debug, Default)]
pub struct Sent {
    calls: AtomicU64,
    bytes: AtomicU64,
}

impl Sent {
    /// Calls that needed the others.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Bytes that leave the rank.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.calls.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

impl Simulated {
    /// The rank that `world` says.
    pub fn new(world: World) -> Self {
        Self { world, traffic: Arc::default() }
    }

    /// What is counted, to look at during the run and afterwards.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

impl Collective for Simulated {
    fn world(&self) -> World {
        self.world
    }

    fn transpose(&mut self, full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        let (rank, ranks) = (self.world.local_rank(), self.world.local_size());
        self.traffic.transpose.add(bytes(&full) / ranks as u64 * (ranks as u64 - 1));
        let copies = full.into_iter().map(|tensor| {
            let len = tensor.dims()[0] / ranks;
            let own = tensor.narrow(0, rank * len, len);
            Tensor::cat(vec![own; ranks], 0)
        });
        Ok(copies.collect())
    }

    fn all_gather(
        &mut self,
        shards: Vec<Tensor<1>>,
        old: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        let (rank, ranks) = (self.world.local_rank(), self.world.local_size());
        self.traffic.all_gather.add(bytes(&shards) * (ranks as u64 - 1));
        let wholes = shards.into_iter().zip(old).map(|(shard, old)| {
            let (len, missing) = (shard.dims()[0], ranks * shard.dims()[0] - old.dims()[0]);
            let whole = match missing {
                0 => old,
                _ => {
                    let zeros = Tensor::zeros([missing], (&old.device(), old.dtype()));
                    Tensor::cat(vec![old, zeros], 0)
                }
            };
            whole.slice_assign(rank * len..(rank + 1) * len, shard)
        });
        Ok(wholes.collect())
    }

    fn sum_nodes(&mut self, shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        let nodes = self.world.nodes() as u64;
        if nodes > 1 {
            // A ring sends every slice twice but for its own part.
            self.traffic.sum_nodes.add(2 * bytes(&shards) * (nodes - 1) / nodes);
        }
        Ok(shards)
    }

    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        let ranks = self.world.size();
        self.traffic.exchange.add((bytes.len() * (ranks - 1)) as u64);
        Ok(vec![bytes.to_vec(); ranks])
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

fn bytes(tensors: &[Tensor<1>]) -> u64 {
    tensors.iter().map(|tensor| (tensor.dims()[0] * tensor.dtype().size()) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn tensor(values: impl IntoIterator<Item = u8>) -> Tensor<1> {
        let values: Vec<f32> = values.into_iter().map(f32::from).collect();
        Tensor::from_floats(values.as_slice(), &Device::flex())
    }

    fn values(tensors: &[Tensor<1>]) -> Vec<Vec<f32>> {
        tensors.iter().map(|tensor| tensor.clone().into_data().try_to_vec().unwrap()).collect()
    }

    #[test]
    fn the_others_send_what_is_its_own() {
        let mut rank = Simulated::new(World::new(4, 6, 3).unwrap());
        let sent = rank.transpose(vec![tensor(0..6), tensor(10..13)]).unwrap();
        assert_eq!(values(&sent), [vec![2., 3., 2., 3., 2., 3.], vec![11., 11., 11.]]);
        let whole = rank.all_gather(vec![tensor([8, 9])], vec![tensor(0..6)]).unwrap();
        assert_eq!(values(&whole), [vec![0., 1., 8., 9., 4., 5.]]);
        // Zeros behind the last value may be missing.
        let whole = rank.all_gather(vec![tensor([8, 9])], vec![tensor(0..5)]).unwrap();
        assert_eq!(values(&whole), [vec![0., 1., 8., 9., 4., 0.]]);
        assert_eq!(values(&rank.sum_nodes(vec![tensor([7, 5])]).unwrap()), [vec![7., 5.]]);
        assert_eq!(rank.exchange(b"hi").unwrap(), vec![b"hi".to_vec(); 6]);
        assert!(rank.is_simulated());
    }

    #[test]
    fn bytes_that_would_leave_are_counted() {
        let mut rank = Simulated::new(World::new(1, 8, 4).unwrap());
        let traffic = rank.traffic();
        rank.transpose(vec![tensor(0..16), tensor(0..4)]).unwrap();
        rank.all_gather(vec![tensor(0..4)], vec![tensor(0..16)]).unwrap();
        rank.sum_nodes(vec![tensor(0..4)]).unwrap();
        rank.exchange(b"abc").unwrap();
        let Traffic { transpose, all_gather, sum_nodes, exchange } = &*traffic;
        assert_eq!((transpose.calls(), transpose.bytes()), (1, 3 * 4 * 4 + 3 * 4));
        assert_eq!((all_gather.calls(), all_gather.bytes()), (1, 3 * 4 * 4));
        assert_eq!((sum_nodes.calls(), sum_nodes.bytes()), (1, 4 * 4));
        assert_eq!((exchange.calls(), exchange.bytes()), (1, 7 * 3));
        let mut alone = Simulated::new(World::SINGLE);
        alone.sum_nodes(vec![tensor(0..4)]).unwrap();
        assert_eq!(alone.traffic().sum_nodes.calls(), 0);
    }
}
