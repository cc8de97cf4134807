//! Which ranks a run has, and which of them this process is.

use tg_llava_train::parallel::{Placement, World};

use super::args::Nproc;
use super::{TrainArgs, input};
use crate::console::Console;
use crate::device::{self, Backend, DefaultDtype, DeviceSpec};
use crate::failure::Failure;

/// How a run is spread.
#[derive(Debug)]
pub(super) enum Spread {
    /// One rank alone, in this process.
    Alone,
    /// This process is one of ranks that something else has started.
    Rank(Placement),
    /// As many ranks in this process, which take turns.
    Threads(usize),
    /// As many ranks, each a process to start, with a GPU of its own.
    #[cfg(unix)]
    Processes(usize),
    /// As many ranks, for this `mpirun` to start.
    #[cfg(all(unix, feature = "mpi"))]
    Mpirun(usize, std::path::PathBuf),
    /// One rank that only imagines the others.
    Simulated(World),
}

impl Spread {
    /// What the arguments and the environment ask for.
    ///
    /// # Errors
    /// [`Failure::Input`] where they contradict each other, or there are not as many devices.
    pub(super) fn new(args: &TrainArgs, console: &Console) -> Result<Self, Failure> {
        let placement = Placement::of_process().map_err(input)?.filter(|place| place.world.size() > 1);
        match (placement, args.nproc, args.simulate) {
            (Some(place), None, None) => Ok(Self::Rank(place)),
            (Some(place), ..) => {
                let (rank, size, by) = (place.world.rank(), place.world.size(), place.launcher.name());
                Err(Failure::input(format_args!(
                    "this process is rank {rank} of {size} already, started by {by}; leave out --nproc and --simulate"
                )))
            }
            (None, _, Some(world)) => Ok(Self::Simulated(world)),
            (None, Some(nproc), None) => Self::here(nproc, args, console),
            (None, None, None) => Ok(Self::Alone),
        }
    }

    /// Ranks on this machine.
    fn here(nproc: Nproc, args: &TrainArgs, console: &Console) -> Result<Self, Failure> {
        let gpus = device::gpus();
        let backend = match args.compute.device {
            Some(spec) => spec.backend,
            // Not opened: that would take memory of the first one.
            None if gpus > 0 => Backend::Cuda,
            None => device::open(&args.compute, DefaultDtype::Fast, &console.silent())?.spec.backend,
        };
        if backend == Backend::Cuda {
            return Self::on_gpus(nproc, gpus, args.compute.device);
        }
        let count = match nproc {
            Nproc::All => {
                console.note(format_args!("{} is one device, so that --nproc is 1", backend.name()));
                1
            }
            Nproc::Count(count) => count,
        };
        if count == 1 {
            return Ok(Self::Alone);
        }
        #[cfg(all(unix, feature = "mpi"))]
        if backend.is_cpu() {
            match mpirun() {
                Some(mpirun) => return Ok(Self::Mpirun(count, mpirun)),
                None => console.note("no mpirun in PATH"),
            }
        }
        console.note(format_args!(
            "{count} ranks take turns on {}: the result is that of {count} devices, and no sooner",
            backend.name()
        ));
        Ok(Self::Threads(count))
    }

    fn on_gpus(nproc: Nproc, gpus: usize, asked: Option<DeviceSpec>) -> Result<Self, Failure> {
        let count = match nproc {
            Nproc::All => gpus,
            Nproc::Count(count) => count,
        };
        if let (Some(spec @ DeviceSpec { index: 1.., .. }), 2..) = (asked, count) {
            return Err(Failure::input(format_args!(
                "--nproc {count} needs a GPU for each rank, and --device {spec} is one; use --device cuda, and \
                 CUDA_VISIBLE_DEVICES to choose among them"
            )));
        }
        if count > gpus {
            return Err(Failure::input(format_args!(
                "--nproc {count}, but this machine has {gpus} GPUs that CUDA can use (CUDA_VISIBLE_DEVICES counts)"
            )));
        }
        match count {
            0 | 1 => Ok(Self::Alone),
            #[cfg(unix)]
            _ => Ok(Self::Processes(count)),
            #[cfg(not(unix))]
            _ => Err(Failure::input("several GPUs need Linux")),
        }
    }
}

/// The ranks that are asked for, whether this machine has devices for them or not; one where nothing asks for more.
///
/// # Errors
/// [`Failure::Input`] where the environment contradicts itself.
pub(super) fn asked(args: &TrainArgs) -> Result<World, Failure> {
    if let Some(world) = args.simulate {
        return Ok(world);
    }
    let count = match args.nproc {
        Some(Nproc::Count(count)) => count,
        Some(Nproc::All) => device::gpus().max(1),
        None => {
            let placement = Placement::of_process().map_err(input)?;
            return Ok(placement.map_or(World::SINGLE, |place| place.world));
        }
    };
    World::new(0, count, count).map_err(input)
}

/// The device of one of several ranks: a GPU of its own where there are any, and else what was asked for.
///
/// # Errors
/// [`Failure::Input`] where the ranks of this node outnumber its GPUs.
pub(in crate::commands) fn device_of(
    placement: &Placement,
    asked: Option<DeviceSpec>,
) -> Result<Option<DeviceSpec>, Failure> {
    let own = match asked {
        // cuda:N with N above 0 is meant as it is written.
        Some(spec) => spec.backend == Backend::Cuda && spec.index == 0,
        None => device::gpus() > 0,
    };
    if !own {
        return Ok(asked);
    }
    let index = placement.gpu(|name| std::env::var(name).ok()).map_err(input)?;
    Ok(Some(DeviceSpec { backend: Backend::Cuda, index }))
}

/// `mpirun`, by whichever of its names it has here.
#[cfg(all(unix, feature = "mpi"))]
fn mpirun() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let files = ["mpirun", "mpiexec"].map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)));
    files.into_iter().flatten().find(|file| file.is_file())
}
