//! One of several ranks that are processes of their own.

use burn::train::Interrupter;
use tg_llava_train::config::TrainConfig;
use tg_llava_train::parallel::watch::{Limits, Progress, Watch, WatchOptions};
use tg_llava_train::parallel::{Collective, Placement};
use tg_llava_train::start::ModelSetup;

use super::emergency::Emergency;
use super::log::{RankLog, log_path, rank_folder, take_over};
use super::ranks::device_of;
use super::start::{Start, follow, lead};
use super::watch::{CtrlC, Display, listen};
use super::{TrainArgs, input, open_device, read_config, report};
use crate::args::OutputArgs;
use crate::console::Console;
use crate::device::{Backend, Opened};
use crate::failure::Failure;

/// Trains as the rank that `placement` says. Rank 0 speaks; the others write into files in `output_dir`.
///
/// # Errors
/// As [`super::run`]; [`Failure::Elsewhere`] where another rank is the reason.
pub(super) fn run(placement: Placement, args: &TrainArgs, console: &Console) -> Result<(), Failure> {
    let launched = follow_launcher();
    let world = placement.world;
    let config = match world.leads() {
        true => read_config(args, console)?,
        false => read_config(args, &console.silent())?,
    };
    // Nothing is written where the run may not write.
    ModelSetup::new(&config).map_err(input)?;
    let folder = rank_folder(&config.output_dir).map_err(Failure::Input)?;
    let mut console = *console;
    if !world.leads() {
        take_over(&log_path(&folder, world.rank())).map_err(Failure::Input)?;
        // Anew, since a file is no terminal.
        console = Console::new(&OutputArgs { json: false, ..args.output.clone() });
    }
    let emergency = Emergency::default();
    let options = WatchOptions {
        folder,
        placement: placement.clone(),
        limits: Limits::default(),
        progress: Progress::of_process(),
    };
    let end = emergency.clone();
    let watch = Watch::start(options, move |trouble| end.end(&trouble.to_string()));
    let watch = watch.map_err(|error| Failure::Input(error.into()))?;
    let rank = Rank { placement, args, console, launched, emergency, watch: &watch };
    let result = rank.train(config);
    let told = result.as_ref().err().and_then(Failure::message);
    watch.end(told.map_or(Ok(()), Err));
    match result {
        // Rank 0 says so, and mpirun ends all where any other does.
        Err(Failure::Interrupted) if !world.leads() => Ok(()),
        result => result,
    }
}

struct Rank<'a> {
    placement: Placement,
    args: &'a TrainArgs,
    console: Console,
    /// Whether `train --nproc` has started it.
    launched: bool,
    emergency: Emergency,
    watch: &'a Watch,
}

impl Rank<'_> {
    fn train(&self, mut config: TrainConfig) -> Result<(), Failure> {
        let (world, console) = (self.placement.world, &self.console);
        let device = device_of(&self.placement, self.args.compute.device)?;
        let opened = open_device(self.args, device, &mut config, console)?;
        let path = log_path(&rank_folder(&config.output_dir).map_err(Failure::Input)?, world.rank());
        let start = Start::new(config, opened.clone(), world.size(), console)?;
        let collective = self.join(&opened, &start.config)?;
        let session = start.session(self.args, collective, console)?;
        let interrupter = Interrupter::new();
        let display = Display::new(self.args, console);
        let ctrl_c = if self.launched { CtrlC::Launcher } else { CtrlC::Here };
        listen(&interrupter, &display, ctrl_c);
        if !world.leads() {
            let mut log = RankLog::open(&path, &interrupter).map_err(Failure::Input)?;
            return follow(session, &mut log);
        }
        let shown = display.clone();
        self.emergency.before_words(move || shown.leave());
        report::opening(&session, &opened, console);
        lead(session, &display, &interrupter, console)
    }

    /// Meets the other ranks.
    fn join(&self, opened: &Opened, config: &TrainConfig) -> Result<Box<dyn Collective>, Failure> {
        #[cfg(any(feature = "cuda", feature = "cuda-plain"))]
        if opened.spec.backend == Backend::Cuda {
            return self.join_gpus(opened, config);
        }
        #[cfg(feature = "mpi")]
        if opened.spec.backend.is_cpu() {
            use tg_llava_train::parallel::Mpi;
            let mpi = Mpi::join().map_err(|error| Failure::Run(error.into()))?;
            let (met, told) = (mpi.world(), self.placement.world);
            if met != told {
                return Err(Failure::input(format_args!(
                    "{} says that this is rank {} of {}, and MPI finds {} of {}; start the ranks with the mpirun of the \
                     MPI that this program was built with",
                    self.placement.launcher.name(),
                    told.rank(),
                    told.size(),
                    met.rank(),
                    met.size()
                )));
            }
            return Ok(Box::new(self.watch.over(mpi)));
        }
        let _ = (opened, config, Backend::Cuda, self.watch);
        Err(Failure::input(format_args!(
            "{} has started {} ranks, and ranks of their own need --device cuda, or a CPU and a build with `--features \
             mpi` under mpirun; train --nproc {1} starts ranks on any device",
            self.placement.launcher.name(),
            self.placement.world.size()
        )))
    }

    #[cfg(any(feature = "cuda", feature = "cuda-plain"))]
    fn join_gpus(&self, opened: &Opened, config: &TrainConfig) -> Result<Box<dyn Collective>, Failure> {
        use tg_llava_cuda::nccl::{Nccl, Rendezvous};
        let world = self.placement.world;
        let rendezvous = match std::env::var_os("NCCL_COMM_ID") {
            Some(_) => Rendezvous::Loopback,
            None => {
                let job = self.placement.job.as_deref().unwrap_or("ranks");
                let folder = rank_folder(&config.output_dir).map_err(Failure::Input)?;
                Rendezvous::File(folder.join(format!("nccl-{job}.id")))
            }
        };
        let nccl = Nccl::join(&opened.device, world, &rendezvous);
        let nccl = nccl.map_err(|error| Failure::Run(error.into()))?;
        let (abort, emergency) = (nccl.abort_handle(), self.emergency.clone());
        let at_the_end = abort.clone();
        emergency.after_words(move || at_the_end.abort());
        let watch = std::thread::Builder::new().name("nccl".into()).spawn(move || {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
                if let Err(reason) = abort.async_error() {
                    emergency.end(&format!("rank {} cannot reach the others: {reason}", world.rank()));
                }
            }
        });
        watch.map_err(|error| Failure::Run(error.into()))?;
        Ok(Box::new(self.watch.over(nccl)))
    }
}

#[cfg(unix)]
use super::launcher::follow_launcher;

#[cfg(not(unix))]
fn follow_launcher() -> bool {
    false
}
