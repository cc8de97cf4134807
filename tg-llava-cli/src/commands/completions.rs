//! `completions`: a script that teaches a shell our commands and flags.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::console::print;
use crate::failure::Failure;

/// Runs the command.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
    print(&String::from_utf8_lossy(&script))
}
