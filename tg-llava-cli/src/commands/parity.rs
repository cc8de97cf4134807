//! `parity`: this build's numbers against golden folders.

use serde_json::json;

use crate::args::ParityArgs;
use crate::console::{Console, print, print_json};
use crate::device::{self, Usual};
use crate::failure::Failure;
use crate::parity::{self, ParityOptions};
use crate::progress::Progress;

/// Runs the command.
///
/// # Errors
/// [`Failure::Check`] on a difference, [`Failure::Input`] where a folder cannot be compared.
pub fn run(args: &ParityArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let opened = device::open(&args.compute, Usual::Exact, &console)?;
    let options = ParityOptions {
        dtype: opened.dtype,
        only: args.only.clone(),
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
