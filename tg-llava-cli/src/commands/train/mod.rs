//! `train`: both stages, from LLaVA data to a model that answers.

mod args;
mod dry_run;
mod report;
mod view;
mod watch;

use std::path::Path;

use anyhow::Error;
use burn::tensor::DType;
use burn::train::Interrupter;
use tg_llava_train::config::{ConfigError, RunDType, TrainConfig, from_llava_args, read_table, set};
use tg_llava_train::run::{RunError, Session, SessionOptions, launch};
use tg_llava_train::start::{ModelSetup, open_data};

pub use args::TrainArgs;

use self::watch::Display;
use crate::console::Console;
use crate::device::{self, Backend, ComputeArgs, DefaultDtype, Dtype, Opened};
use crate::failure::Failure;
use crate::progress::Progress;

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where the run or its files cannot be used, [`Failure::Run`] where it fails on the way,
/// [`Failure::Interrupted`] where it was stopped and saved.
pub fn run(args: &TrainArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let mut config = read_config(args, &console)?;
    let opened = open_device(args, &mut config, &console)?;
    let setup = ModelSetup::new(&config).map_err(input)?;
    console.detail(format_args!("template {}", setup.template.name));
    let data = open_data(&config, &setup).map_err(input)?;
    if args.dry_run {
        return dry_run::run(&config, &setup, &data, &opened, &console);
    }
    dry_run::check_memory(&config, &setup, &opened, &console)?;
    let options =
        SessionOptions { device: opened.device.clone(), dtype: opened.dtype, restart: args.restart };
    let bar = Progress::bar(&console, "loading", || None);
    let session = Session::open(config, setup, data, &options, &mut |count| bar.advance(count));
    drop(bar);
    let session = session.map_err(failed)?;
    report::opening(&session, &opened, &console);
    let interrupter = Interrupter::new();
    let display = Display::new(args, &console);
    watch::listen(&interrupter, &display);
    let renderer = display.renderer(&interrupter);
    let summary = launch(session, renderer, &interrupter, display.observer()).map_err(failed)?;
    report::closing(&summary, &console)?;
    if summary.interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

/// The run that the arguments describe, with the stage's defaults written out.
fn read_config(args: &TrainArgs, console: &Console) -> Result<TrainConfig, Failure> {
    let mut table = match &args.config {
        Some(path) => read_table(path).map_err(config_error)?,
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
    for assignment in &args.assignments {
        set(&mut table, assignment).map_err(config_error)?;
    }
    let config = TrainConfig::from_table(table).map_err(config_error)?;
    config.validate().map_err(config_error)?;
    Ok(config)
}

/// Opens the device; the run's number format holds where none is given on the command line.
fn open_device(args: &TrainArgs, config: &mut TrainConfig, console: &Console) -> Result<Opened, Failure> {
    let mut compute = args.compute.clone();
    if compute.dtype.is_none() {
        compute.dtype = config.run.dtype.map(|dtype| match dtype {
            RunDType::F32 => Dtype::F32,
            RunDType::F16 => Dtype::F16,
            RunDType::Bf16 => Dtype::Bf16,
        });
    }
    // The published scripts ask for bf16 whatever the machine; a CPU would take over ten times as long, and
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
        _ => Failure::Run(error.into()),
    }
}

/// A path as the user would write it.
fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
