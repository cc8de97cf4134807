//! `completions`: a script that teaches a shell our commands and flags.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::console::print;
use crate::failure::Failure;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Runs the command for the program that `cli` describes.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(args: &CompletionsArgs, cli: &mut Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, cli, env!("CARGO_PKG_NAME"), &mut script);
    print(&String::from_utf8_lossy(&script))
}
