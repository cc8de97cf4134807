//! `inspect`: what a checkpoint folder holds and whether it is complete: from headers, but for the checksums of
//! PyTorch files.

mod compare;
mod contents;
mod describe;
mod folder;
mod render;

use std::path::PathBuf;

use clap::Args;

use crate::args::OutputArgs;
use crate::checkpoint::{self, Folders};
use crate::console::{Console, print, print_json};
use crate::failure::Failure;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Checkpoint: a folder, or a model on Hugging Face, OWNER/NAME(@REVISION); or a GGUF file
    #[arg(value_name = "MODEL|FILE")]
    pub model: PathBuf,
    /// The decoder, named like MODEL, or a GGUF file: where MODEL holds none (stage-1 files, an adapter), or in the place of its own
    #[arg(long, value_name = "MODEL|FILE")]
    pub base: Option<PathBuf>,
    /// Output format; `-v` lists every tensor.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Check`] where the folder is not complete, [`Failure::Input`] where it cannot be read.
pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let folders = match checkpoint::is_gguf(&args.model) {
        true => Folders { model: args.model.clone(), base: None },
        false => checkpoint::find(Some(&args.model), args.base.as_deref(), &console)?,
    };
    let mut contents = folder::inspect(&folders.model, folders.base.as_deref())?;
    if console.json {
        if !console.verbose {
            contents.tensors.clear();
        }
        print_json(&contents, true)?;
    } else {
        print(&render::text(&contents, console.verbose))?;
    }
    if contents.complete { Ok(()) } else { Err(Failure::Check) }
}
