//! The command line of TG-LLaVA: ask about pictures, check numbers, look into checkpoints.
//!
//! [`cli`] says what can be typed, [`commands`] does it, and [`device`] is the one place that names backends.
//! Results go to stdout and everything else to stderr, so that output can be piped.

pub mod args;
pub mod benchmark;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod console;
pub mod device;
pub mod failure;
mod fault;
pub mod hub;
pub mod interrupt;
pub mod load;
pub mod memory;
pub mod parity;
pub mod picture;
pub mod prepare;
pub mod progress;
pub mod quantised;
pub mod serve;
mod web;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use failure::Failure;

/// Runs the program on its command line and gives its exit code: 0 ok, 1 failed check or run, 2 bad usage or
/// bad input, 75 another rank failed, 130 stopped by Ctrl-C.
pub fn main() -> ExitCode {
    memory::keep_freed_memory();
    let cli = Cli::parse();
    let result = fault::contain(|| run(&cli));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                eprintln!("error: {message}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Runs one command.
///
/// # Errors
/// A [`Failure`], which knows its exit code and what to print.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Chat(args) => commands::chat::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::Score(args) => commands::score::run(args),
        Command::Convert(args) => commands::convert::run(args),
        Command::Merge(args) => commands::merge::run(args),
        Command::Data(args) => commands::data::run(args),
        Command::Parity(args) => commands::parity::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Fetch(args) => commands::fetch::run(args),
        Command::Completions(args) => commands::completions::run(args, &mut Cli::command()),
    }
}
