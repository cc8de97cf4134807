//! What ranks do together, against values that are known: the proof that a network and its library work.

use std::time::Instant;

use anyhow::anyhow;
use burn::tensor::Device;
use serde_json::{Value, json};
use tg_llava_train::parallel::{CheckSize, Collective, Placement, Single, World, check};

use super::timing::round;
use crate::commands::train::device_of;
use crate::console::Console;
use crate::device::{self, ComputeArgs, DefaultDtype, Opened};
use crate::failure::Failure;

/// Checks every collective `rounds` times, and that memory stays as it is; nothing where another rank speaks.
///
/// # Errors
/// [`Failure::Run`] where the ranks do not meet, values are wrong, or memory grows.
pub(super) fn measure(
    compute: &ComputeArgs,
    rounds: usize,
    console: &Console,
) -> Result<Option<Value>, Failure> {
    let placement = Placement::of_process().map_err(Failure::input)?;
    let mut compute = compute.clone();
    if let Some(placement) = &placement {
        compute.device = device_of(placement, compute.device)?;
    }
    let opened = device::open(&compute, DefaultDtype::Fast, console)?;
    let mut collective = join(&opened, placement.as_ref())?;
    let world = collective.world();
    let side = if opened.spec.backend.is_cpu() { 512 } else { 4096 };
    let start = Instant::now();
    let mut reserved = Vec::with_capacity(rounds);
    check(collective.as_mut(), &opened.device, CheckSize { rounds, side }, |_| {
        reserved.extend(reserved_bytes(&opened.device));
    })
    .map_err(|error| Failure::Run(error.into()))?;
    let memory = flat(&reserved)?;
    Ok(world.leads().then(|| report(world, rounds, start.elapsed().as_secs_f64(), memory)))
}

fn report(world: World, rounds: usize, seconds: f64, memory: Option<[u64; 2]>) -> Value {
    json!({
        "ranks": world.size(),
        "nodes": world.nodes(),
        "rounds": rounds,
        "ms_per_round": round(seconds * 1e3 / rounds as f64),
        "reserved_bytes_settled_and_at_the_end": memory,
    })
}

fn reserved_bytes(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}

/// Bytes after a tenth of the rounds, when pools have settled, and after all.
fn flat(reserved: &[u64]) -> Result<Option<[u64; 2]>, Failure> {
    let (Some(&settled), Some(&last)) = (reserved.get(reserved.len().div_ceil(10)), reserved.last()) else {
        return Ok(None);
    };
    if last > settled {
        return Err(Failure::Run(anyhow!(
            "memory of the device grew from {settled} to {last} bytes over {} rounds of the same calls",
            reserved.len()
        )));
    }
    Ok(Some([settled, last]))
}

/// The ranks that were started together. GPUs of CUDA meet over NCCL, and even one alone goes through it.
fn join(opened: &Opened, placement: Option<&Placement>) -> Result<Box<dyn Collective>, Failure> {
    #[cfg(any(feature = "cuda", feature = "cuda-plain"))]
    if opened.spec.backend == device::Backend::Cuda {
        use tg_llava_cuda::nccl::{Nccl, Rendezvous};
        let world = placement.map_or(World::SINGLE, |placement| placement.world);
        let nccl = Nccl::join(&opened.device, world, &Rendezvous::Loopback);
        return nccl.map(|nccl| Box::new(nccl) as _).map_err(|error| Failure::Run(error.into()));
    }
    #[cfg(feature = "mpi")]
    if opened.spec.backend.is_cpu() && placement.is_some() {
        let mpi = tg_llava_train::parallel::Mpi::join();
        return mpi.map(|mpi| Box::new(mpi) as _).map_err(|error| Failure::Run(error.into()));
    }
    match placement.map_or(1, |placement| placement.world.size()) {
        1 => Ok(Box::new(Single)),
        ranks => Err(Failure::input(format_args!(
            "{ranks} ranks on {} do not meet in this build: GPUs need cuda, CPUs a build with `--features mpi`",
            opened.spec
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_after_it_has_settled_is_a_failure() {
        assert_eq!(flat(&[]).unwrap(), None);
        assert_eq!(flat(&[1, 5, 5, 4, 5]).unwrap(), Some([5, 5]));
        let error = flat(&[1, 5, 5, 5, 6]).unwrap_err();
        assert!(error.message().unwrap().contains("from 5 to 6 bytes over 5 rounds"));
    }
}
