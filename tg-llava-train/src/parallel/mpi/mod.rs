//! Ranks that are processes under `mpirun` or any other launcher of MPI.
//!
//! Compiled with the feature `mpi`, on an installation of MPI 3.1 (Open MPI 4 and MPICH are what the crate `mpi` is tested with) and
//! libclang. Debian: `apt-get install libopenmpi-dev openmpi-bin libclang-dev`. The library that the program was built with is the one
//! that it needs to run.
//!
//! Tensors go through the memory of the CPU, as bytes of their own dtype: made for the CPU backends and for proof, not for GPUs.

mod groups;

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{Collective, ParallelError, World};
use groups::Groups;

/// Processes that MPI has started together.
///
/// MPI's handles stay on one thread of their own, which is the one that starts MPI and ends it: they may not be sent between threads.
/// An error inside of MPI ends all processes with MPI's own message, since that is how it is set up and the crate has no other way.
///
/// When it is dropped, it waits for the other ranks to drop theirs. A rank that fails alone gives up after
/// half a minute and ends without MPI's leave, by which the launcher knows to end the others.
#[derive(Debug)]
pub struct Mpi {
    world: World,
    calls: Option<mpsc::Sender<Call>>,
    thread: Option<JoinHandle<()>>,
}

/// What MPI's thread does next.
type Call = Box<dyn FnOnce(&Groups) + Send>;

impl Mpi {
    /// Joins the ranks that were started together; a process that was started alone is a world of one. Once in a process.
    ///
    /// # Errors
    /// [`ParallelError`] where MPI does not start, or its ranks are not numbered node by node with as many on each.
    pub fn join() -> Result<Self, ParallelError> {
        let (calls, todo) = mpsc::channel::<Call>();
        let (tell, told) = mpsc::channel();
        let failed = |reason: String| ParallelError::Transport { rank: 0, reason };
        let thread = thread::Builder::new()
            .name("mpi".into())
            .spawn(move || groups::serve(&tell, todo))
            .map_err(|error| failed(format!("no thread for MPI: {error}")))?;
        let world = told.recv().map_err(|_| failed("MPI's thread ended while it started MPI".into()))??;
        Ok(Self { world, calls: Some(calls), thread: Some(thread) })
    }

    /// The result of `call`, made on MPI's thread.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Groups) -> T + Send + 'static,
    ) -> Result<T, ParallelError> {
        let (tell, told) = mpsc::channel();
        let sent = self.calls.as_ref().map(|calls| {
            calls.send(Box::new(move |groups| {
                // Nobody listens where the caller's thread has ended.
                let _ = tell.send(call(groups));
            }))
        });
        match (sent, told.recv()) {
            (Some(Ok(())), Ok(result)) => Ok(result),
            _ => Err(self.failed("MPI's thread has ended".into())),
        }
    }

    fn failed(&self, reason: String) -> ParallelError {
        ParallelError::Transport { rank: self.world.rank(), reason }
    }

    /// Each tensor after `call` over its bytes.
    fn each(
        &self,
        tensors: Vec<Tensor<1>>,
        call: fn(&Groups, &[u8]) -> Vec<u8>,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        tensors
            .into_iter()
            .map(|tensor| {
                let (device, dtype) = (tensor.device(), tensor.dtype());
                let data = tensor.try_into_data().map_err(|error| self.failed(error.to_string()))?;
                let (bytes, ..) = data.into_parts();
                self.tensor(self.call(move |groups| call(groups, &bytes))?, dtype, &device)
            })
            .collect()
    }

    fn tensor(&self, bytes: Vec<u8>, dtype: DType, device: &Device) -> Result<Tensor<1>, ParallelError> {
        let count = bytes.len() / dtype.size();
        let data = TensorData::try_from_bytes_vec(bytes, [count], dtype)
            .map_err(|error| self.failed(error.to_string()))?;
        Ok(Tensor::from_data(data, (device, dtype)))
    }
}

impl Collective for Mpi {
    fn world(&self) -> World {
        self.world
    }

    fn transpose(&mut self, full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        match self.world.local_size() {
            1 => Ok(full),
            _ => self.each(full, Groups::transpose),
        }
    }

    fn all_gather(
        &mut self,
        shards: Vec<Tensor<1>>,
        old: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        drop(old);
        match self.world.local_size() {
            1 => Ok(shards),
            _ => self.each(shards, Groups::all_gather),
        }
    }

    fn sum_nodes(&mut self, shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        if self.world.nodes() == 1 {
            return Ok(shards);
        }
        match shards.iter().find(|shard| shard.dtype() != DType::F32) {
            Some(other) => Err(self.failed(format!("sums over nodes are f32, not {}", other.dtype().name()))),
            None => self.each(shards, Groups::sum_nodes),
        }
    }

    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        let bytes = bytes.to_vec();
        self.call(move |groups| groups.exchange(&bytes))
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        drop(self.calls.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been told already, by the call that it ended.
            let _ = thread.join();
        }
    }
}
