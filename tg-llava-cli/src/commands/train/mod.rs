//! `train`: both stages, from LLaVA data to a model that answers.

mod args;
mod dry_run;
mod emergency;
#[cfg(unix)]
mod launcher;
mod log;
mod rank;
mod ranks;
mod report;
mod simulate;
mod start;
mod threads;
mod view;
mod watch;

use std::path::Path;

use anyhow::Error;
use burn::tensor::DType;
use burn::train::Interrupter;
use tg_llava_train::config::{
    Bridges, ConfigError, ModelOptions, RunDType, Stage, TrainConfig, from_llava_args, parse_table,
    read_table, set,
};
use tg_llava_train::parallel::{ParallelError, Single};
use tg_llava_train::run::RunError;
use tg_llava_train::start::ModelSetup;

pub use args::{Nproc, TrainArgs};

pub(super) use self::ranks::device_of;

use self::ranks::Spread;
use self::start::{Start, lead};
use self::watch::{CtrlC, Display, listen};
use crate::console::Console;
use crate::device::{self, Backend, ComputeArgs, DefaultDtype, DeviceSpec, Dtype, Opened};
use crate::failure::Failure;
use crate::hub::{Hub, ModelName, Need};

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where the run or its files cannot be used, [`Failure::Run`] where it fails on the way,
/// [`Failure::Elsewhere`] where another rank does, [`Failure::Interrupted`] where it was stopped and saved.
pub fn run(args: &TrainArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    if args.dry_run {
        return dry_run(args, &console);
    }
    match Spread::new(args, &console)? {
        Spread::Alone => alone(args, &console),
        Spread::Rank(placement) => rank::run(placement, args, &console),
        Spread::Threads(count) => threads::run(count, args, &console),
        #[cfg(unix)]
        Spread::Processes(count) => launch(count, args, &console)?.processes(),
        #[cfg(all(unix, feature = "mpi"))]
        Spread::Mpirun(count, mpirun) => launch(count, args, &console)?.mpirun(&mpirun),
        Spread::Simulated(world) => simulate::run(world, args, &console),
    }
}

/// What can be known before the first step.
fn dry_run(args: &TrainArgs, console: &Console) -> Result<(), Failure> {
    let world = ranks::asked(args)?;
    if !world.leads() {
        return Ok(());
    }
    let mut config = read_config(args, console)?;
    if let Some(preset) = &args.preset {
        return dry_run::run_preset(&config, preset, (world, args.compute.dtype), console);
    }
    let opened = open_device(args, args.compute.device, &mut config, console)?;
    let start = Start::new(config, opened, world.size(), console)?;
    dry_run::run(&start.plan(world), &start.data, console)
}

/// One rank, in this process.
fn alone(args: &TrainArgs, console: &Console) -> Result<(), Failure> {
    let launcher = args.llava_flags.first().filter(|word| !word.starts_with('-') && !word.ends_with(".py"));
    if let (Some(launcher), None) = (launcher, args.nproc) {
        console.note(format_args!(
            "{launcher} is not started, and one device trains; `train --nproc N {launcher} ...` trains on N of them"
        ));
    }
    let mut config = read_config(args, console)?;
    let opened = open_device(args, args.compute.device, &mut config, console)?;
    let start = Start::new(config, opened.clone(), 1, console)?;
    let session = start.session(args, Box::new(Single), console)?;
    report::opening(&session, &opened, console);
    let (interrupter, display) = (Interrupter::new(), Display::new(args, console));
    listen(&interrupter, &display, CtrlC::Here);
    lead(session, &display, &interrupter, console)
}

/// Ranks to start; what is wrong with the run's description shows before they are.
#[cfg(unix)]
fn launch(count: usize, args: &TrainArgs, console: &Console) -> Result<launcher::Launch, Failure> {
    let config = read_config(args, &console.silent())?;
    ModelSetup::new(&config).map_err(input)?;
    launcher::Launch::new(count, &config.output_dir, Display::new(args, console))
}

/// The run that the arguments describe, with the stage's defaults written out.
fn read_config(args: &TrainArgs, console: &Console) -> Result<TrainConfig, Failure> {
    let mut table = match &args.config {
        Some(path) => read_table(path).map_err(config_error)?,
        None if args.llava_flags.is_empty() && args.preset.is_some() => {
            let stage = args.stage.map_or(Stage::Finetune, Stage::from);
            parse_table(&dry_run::usual_run(stage), "--preset").map_err(config_error)?
        }
        None if args.llava_flags.is_empty() => {
            return Err(Failure::input(
                "no run given; name one with --config FILE (examples/runs has some), or write LLaVA's flags",
            ));
        }
        None => {
            let (table, notes) = from_llava_args(&args.llava_flags).map_err(config_error)?;
            notes.iter().for_each(|note| console.note(note));
            table
        }
    };
    for assignment in args.preset.iter().flat_map(|preset| dry_run::without_files(preset)) {
        set(&mut table, &assignment).map_err(config_error)?;
    }
    for assignment in &args.assignments {
        set(&mut table, assignment).map_err(config_error)?;
    }
    let mut config = TrainConfig::from_table(table).map_err(config_error)?;
    config.validate().map_err(config_error)?;
    if args.preset.is_none() {
        fetch_named(&mut config.model, &Console::new(&args.output))?;
    }
    Ok(config)
}

/// Fetches what is named as on Hugging Face, where it is not there yet. Model and bridges become folders; towers keep their names,
/// which what is trained is saved with.
fn fetch_named(model: &mut ModelOptions, console: &Console) -> Result<(), Failure> {
    let hub = Hub::of_environment(console);
    if let Some(name) = ModelName::instead_of(&model.path) {
        model.path = hub.model(&name, false)?;
    }
    if let Some(Bridges::Folder(path)) = &mut model.bridges
        && let Some(name) = ModelName::instead_of(path)
    {
        // Their files alone are read, not what they build on.
        *path = hub.folder(&name, Need::Everything)?;
    }
    for name in [&model.vision_tower, &model.text_tower].into_iter().flatten() {
        if let Some(name) = ModelName::instead_of(Path::new(name)) {
            hub.folder(&name, Need::Everything)?;
        }
    }
    Ok(())
}

/// Opens `device`, or the best one that works; the run's number format holds where none is given on the command line.
fn open_device(
    args: &TrainArgs,
    device: Option<DeviceSpec>,
    config: &mut TrainConfig,
    console: &Console,
) -> Result<Opened, Failure> {
    let mut compute = ComputeArgs { device, ..args.compute.clone() };
    if compute.dtype.is_none() {
        compute.dtype = config.run.dtype.map(|dtype| match dtype {
            RunDType::F32 => Dtype::F32,
            RunDType::F16 => Dtype::F16,
            RunDType::Bf16 => Dtype::Bf16,
        });
    }
    // The published scripts ask for bf16 whatever the machine; a CPU would take many times as long, and
    // wgpu has none. Which device it is shows when it is opened, which f32 never hinders.
    if compute.dtype == Some(Dtype::Bf16) && args.compute.dtype.is_none() && !args.llava_flags.is_empty() {
        let plain = ComputeArgs { dtype: Some(Dtype::F32), ..compute.clone() };
        let spec = device::open(&plain, DefaultDtype::Fast, &console.silent())?.spec;
        if matches!(spec.backend, Backend::Flex | Backend::NdArray | Backend::Wgpu) {
            console.note(format_args!("{spec} does not compute well in bf16; training in f32"));
            compute.dtype = Some(Dtype::F32);
        }
    }
    let opened = device::open(&compute, DefaultDtype::Fast, console)?;
    // Products that gradients are recorded for are Burn's own, which convert halves on every call.
    if opened.spec.backend.is_cpu() && opened.dtype != DType::F32 {
        console.warn(format_args!(
            "{0} trains many times slower than f32 on a CPU; --dtype f32 loads {0} files as well",
            opened.dtype.name()
        ));
    }
    config.run.dtype = Some(match opened.dtype {
        DType::F16 => RunDType::F16,
        DType::BF16 => RunDType::Bf16,
        _ => RunDType::F32,
    });
    Ok(opened)
}

fn config_error(error: ConfigError) -> Failure {
    Failure::Input(error.into())
}

fn input(error: impl Into<Error>) -> Failure {
    Failure::Input(error.into())
}

/// What was given is wrong, or the run itself failed.
fn failed(error: RunError) -> Failure {
    match error {
        RunError::Start(_) | RunError::Data(_) | RunError::Busy { .. } => Failure::Input(error.into()),
        RunError::Parallel(
            ParallelError::Other { .. } | ParallelError::Gone { .. } | ParallelError::Transport { .. },
        ) => Failure::Elsewhere(error.into()),
        _ => Failure::Run(error.into()),
    }
}

/// A path as the user would write it.
fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
