//! `parity`: this build's numbers against golden folders.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use crate::args::OutputArgs;
use crate::console::{Console, print, print_json};
use crate::device::{self, ComputeArgs, DefaultDtype};
use crate::failure::Failure;
use crate::parity::{self, MODEL_GROUPS, ParityOptions};
use crate::progress::Progress;

/// Arguments of `parity`.
#[derive(Debug, Args)]
pub struct ParityArgs {
    /// Golden folders; what is in them is recognised by their files
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Compare only these groups of model folders, separated by commas, and no other folders
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_parser = PossibleValuesParser::new(MODEL_GROUPS))]
    pub only: Vec<String>,
    /// Repeat recorded training runs on so many ranks, which are threads here and take turns
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub ranks: u16,
    /// Device and number format.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Check`] on a difference, [`Failure::Input`] where a folder cannot be compared.
pub fn run(args: &ParityArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let opened = device::open(&args.compute, DefaultDtype::Exact, &console)?;
    let options = ParityOptions {
        dtype: opened.dtype,
        only: args.only.clone(),
        ranks: args.ranks.into(),
        largest_buffer: opened.largest_buffer(),
        ..ParityOptions::default()
    };
    let spinner = Progress::spinner(&console, "comparing");
    let report = parity::run(&args.dirs, &opened.device, &options).map_err(Failure::Input)?;
    drop(spinner);
    if console.json {
        let value = json!({
            "device": opened.spec.to_string(),
            "dtype": opened.dtype.name(),
            "groups": report.rows().count(),
            "failures": report.failures(),
            "folders": report.folders,
        });
        print_json(&value, true)?;
    } else {
        print(&report.table())?;
    }
    match report.failures() {
        0 => Ok(()),
        _ => Err(Failure::Check),
    }
}
