use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use cubecl_common::device_handle::DeviceHandle;
use tg_llava_train::parallel::{Collective, ParallelError, World};

use super::buffer::buffer;
use super::clock::Clock;
use super::communicator::{self, Call, Communicators, Group};
use super::rendezvous::Rendezvous;
use crate::device::Server;

/// GPUs that have met, one of which is this process's.
///
/// All calls must come from the thread that computes: CubeCL's streams and memory pools belong to threads.
pub struct Nccl {
    world: World,
    device: Device,
    handle: DeviceHandle<Server>,
    communicators: Arc<Communicators>,
    clock: Clock,
    failed: bool,
}

/// The end of an [`Nccl`] that another thread holds, to watch it.
#[derive(Debug, Clone)]
pub struct NcclAbort(Arc<Communicators>);

impl NcclAbort {
    /// What NCCL's own threads have met: a peer that is gone, most often.
    ///
    /// # Errors
    /// NCCL's words.
    pub fn async_error(&self) -> Result<(), String> {
        self.0.async_error()
    }

    /// Ends what waits for other ranks. Made for the moment before the process ends: every later call fails.
    pub fn abort(&self) {
        self.0.abort();
    }
}

impl Nccl {
    /// Meets the other ranks; `device` is this rank's GPU.
    ///
    /// # Errors
    /// [`ParallelError::Transport`] where NCCL is missing, the device is no GPU of CUDA, or the ranks do not meet.
    pub fn join(device: &Device, world: World, rendezvous: &Rendezvous) -> Result<Self, ParallelError> {
        let failed = |reason| ParallelError::Transport { rank: world.rank(), reason };
        communicator::load().map_err(failed)?;
        let device = device.clone().inner();
        let probe = buffer(Tensor::zeros([1], (&device, DType::F32))).map_err(failed)?;
        let handle = DeviceHandle::<Server>::new(probe.client.service_id().device);
        // NCCL wants the device's context, which that thread has.
        let on_device =
            |error: &dyn std::fmt::Debug| failed(format!("the device's thread failed: {error:?}"));
        let agreed = rendezvous.agree(world, || {
            handle.submit_blocking(|_| communicator::unique_id()).map_err(|error| format!("{error:?}"))?
        })?;
        let id = agreed.id;
        let communicators = handle
            .submit_blocking(move |_| Communicators::join(world, id))
            .map_err(|error| on_device(&error))?
            .map_err(failed)?;
        // All have met.
        drop(agreed.file);
        let (communicators, clock) = (Arc::new(communicators), Clock::new());
        Ok(Self { world, device, handle, communicators, clock, failed: false })
    }

    /// For the thread that watches.
    pub fn abort_handle(&self) -> NcclAbort {
        NcclAbort(self.communicators.clone())
    }

    fn enqueue(
        &mut self,
        what: (Group, Call),
        pairs: &[(CubeTensor, CubeTensor)],
    ) -> Result<(), ParallelError> {
        let done = self.communicators.enqueue(&self.handle, what, pairs, &mut self.clock);
        self.checked(done)
    }

    /// After an error the communicators are aborted, not given back.
    fn checked<T>(&mut self, result: Result<T, String>) -> Result<T, ParallelError> {
        self.failed |= result.is_err();
        result.map_err(|reason| ParallelError::Transport { rank: self.world.rank(), reason })
    }

    /// A tensor that a call will fill, with its buffer and that of what it is made from.
    fn pair(
        &mut self,
        from: Tensor<1>,
        count: usize,
    ) -> Result<(Tensor<1>, (CubeTensor, CubeTensor)), ParallelError> {
        let into = Tensor::empty([count], (&from.device(), from.dtype()));
        // A clone is resolved, so that the tensor stays.
        let pair = buffer(from).and_then(|from| Ok((from, buffer(into.clone())?)));
        Ok((into, self.checked(pair)?))
    }

    /// One call over all tensors, `times` as long afterwards.
    fn together(
        &mut self,
        what: (Group, Call),
        tensors: Vec<Tensor<1>>,
        times: usize,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        let mut filled = Vec::with_capacity(tensors.len());
        let mut pairs = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let count = tensor.dims()[0] * times;
            let (into, pair) = self.pair(tensor, count)?;
            filled.push(into);
            pairs.push(pair);
        }
        self.enqueue(what, &pairs)?;
        Ok(filled)
    }

    /// As many bytes of every rank, by rank. They travel as f32 values, which nothing computes with.
    fn gather_bytes(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, ParallelError> {
        let count = bytes.len() / DType::F32.size();
        let data = TensorData::from_bytes_vec(bytes, [count], DType::F32);
        let own = Tensor::from_data(data, (&self.device, DType::F32));
        let all = self.together((Group::World, Call::AllGather), vec![own], self.world.size())?;
        let mut bytes = Vec::new();
        for tensor in all {
            let read = tensor.try_into_data().map_err(|error| error.to_string());
            bytes.extend_from_slice(self.checked(read)?.bytes());
        }
        Ok(bytes)
    }
}

impl Collective for Nccl {
    fn world(&self) -> World {
        self.world
    }

    fn transpose(&mut self, full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        self.together((Group::Node, Call::Transpose), full, 1)
    }

    fn all_gather(
        &mut self,
        shards: Vec<Tensor<1>>,
        old: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        drop(old);
        self.together((Group::Node, Call::AllGather), shards, self.world.local_size())
    }

    /// NCCL chooses the order of the sum. One tensor after the other, so that only one is there twice. A rank alone asks NCCL all the
    /// same, which is how one GPU checks it.
    fn sum_nodes(&mut self, shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        if self.world.nodes() == 1 && self.world.size() > 1 {
            return Ok(shards);
        }
        let mut sums = Vec::with_capacity(shards.len());
        for shard in shards {
            sums.extend(self.together((Group::Across, Call::Sum), vec![shard], 1)?);
        }
        Ok(sums)
    }

    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        let lens = self.gather_bytes((bytes.len() as u64).to_ne_bytes().to_vec())?;
        let lens: Vec<usize> =
            lens.as_chunks().0.iter().map(|len| u64::from_ne_bytes(*len) as usize).collect();
        let longest = lens.iter().copied().max().unwrap_or(0).max(1).next_multiple_of(DType::F32.size());
        let mut own = bytes.to_vec();
        own.resize(longest, 0);
        let all = self.gather_bytes(own)?;
        Ok(all.chunks_exact(longest).zip(lens).map(|(bytes, len)| bytes[..len].to_vec()).collect())
    }

    fn take_device_seconds(&mut self) -> Option<f64> {
        let clock = &mut self.clock;
        // A device whose thread is gone says so in the next call.
        self.handle.submit_blocking(move |_| clock.take_seconds()).ok().flatten()
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if self.failed {
            return self.communicators.abort();
        }
        let (communicators, clock) = (self.communicators.clone(), std::mem::take(&mut self.clock));
        // A device whose thread is gone has nothing to give back.
        let _ = self.handle.submit_blocking(move |_| {
            communicators.destroy();
            drop(clock);
        });
    }
}
