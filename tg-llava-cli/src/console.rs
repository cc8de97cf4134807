//! What goes to stderr, and how much of it.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::OutputArgs;
use crate::failure::Failure;

/// Where messages go, and how many of them are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// Results as JSON.
    pub json: bool,
    /// Whether details are wanted (`-v`).
    pub verbose: bool,
    quiet: bool,
    animated: bool,
}

impl Console {
    /// As the flags say.
    pub fn new(args: &OutputArgs) -> Self {
        Self {
            json: args.json,
            verbose: args.verbose,
            quiet: args.quiet,
            animated: !args.quiet && io::stderr().is_terminal(),
        }
    }

    /// The same console that says nothing, for a first try.
    pub fn silent(&self) -> Self {
        Self { verbose: false, quiet: true, animated: false, ..*self }
    }

    /// Whether progress bars are drawn: on a terminal, unless `-q`.
    pub fn animated(&self) -> bool {
        self.animated
    }

    /// Something that may be wrong.
    pub fn warn(&self, message: impl std::fmt::Display) {
        self.say(format_args!("warning: {message}"));
    }

    /// Something that went wrong where the program goes on.
    pub fn error(&self, message: impl std::fmt::Display) {
        self.say(format_args!("error: {message}"));
    }

    /// Something good to know; `-q` silences it.
    pub fn note(&self, message: impl std::fmt::Display) {
        if !self.quiet {
            self.say(message);
        }
    }

    /// Something for the curious: with `-v` alone.
    pub fn detail(&self, message: impl std::fmt::Display) {
        if self.verbose {
            self.say(message);
        }
    }

    /// Something that was asked for. A message that cannot be delivered is nothing to stop for.
    pub fn say(&self, message: impl std::fmt::Display) {
        let _ = writeln!(io::stderr(), "{message}");
    }
}

/// Writes one JSON value and a line break to stdout, on one line or indented.
///
/// # Errors
/// Where stdout cannot be written.
pub fn print_json(value: &impl Serialize, pretty: bool) -> Result<(), Failure> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    let text = text.map_err(|e| Failure::Run(e.into()))?;
    print(&(text + "\n"))
}

/// Writes text to stdout at once.
///
/// # Errors
/// Where stdout cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
