//! Where a conversation's lines come from: a line editor on a terminal, plain lines otherwise.

use std::collections::VecDeque;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, Error};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use crate::failure::Failure;

/// Lines that the editor remembers.
const HISTORY_LINES: usize = 1000;
const PROMPT: &str = "> ";

/// The next thing that was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// A line without its end.
    Line(String),
    /// A line that is not UTF-8 text, with marks in the place of what is not.
    NoText(String),
    /// Ctrl-C instead of a line.
    Interrupt,
    /// Ctrl-D, or the end of the input.
    End,
}

/// A source of lines.
pub enum Input {
    /// A terminal.
    Editor(Box<Terminal>),
    /// Piped lines.
    Plain,
}

/// A line editor on a terminal.
pub struct Terminal {
    editor: DefaultEditor,
    /// Where the history is kept, where it can be.
    history: Option<PathBuf>,
    /// Lines that were pasted together and are still to come.
    pasted: VecDeque<String>,
}

impl Input {
    /// An editor where both ends are a terminal.
    ///
    /// # Errors
    /// [`Failure::Run`] where the terminal cannot be used.
    pub fn open() -> Result<Self, Failure> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(Self::Plain);
        }
        let editor = || -> rustyline::Result<DefaultEditor> {
            let config = Config::builder().max_history_size(HISTORY_LINES)?.auto_add_history(true).build();
            DefaultEditor::with_config(config)
        };
        let mut editor = editor().context("the terminal cannot be used").map_err(Failure::Run)?;
        let history = history_file();
        if let Some(file) = &history {
            // The first time there is none.
            let _ = editor.load_history(file);
        }
        Ok(Self::Editor(Box::new(Terminal { editor, history, pasted: VecDeque::new() })))
    }

    /// Whether somebody sits in front of it.
    pub fn is_interactive(&self) -> bool {
        matches!(self, Self::Editor(..))
    }

    /// Waits for the next line.
    ///
    /// # Errors
    /// [`Failure::Run`] where input cannot be read.
    pub fn next(&mut self) -> Result<Typed, Failure> {
        match self {
            Self::Editor(terminal) => terminal.next(),
            Self::Plain => read_plain(&mut io::stdin().lock()),
        }
    }
}

impl Terminal {
    fn next(&mut self) -> Result<Typed, Failure> {
        if let Some(line) = self.pasted.pop_front() {
            return Ok(Typed::Line(line));
        }
        match self.editor.readline(PROMPT) {
            Ok(text) => {
                let mut lines = text.lines().map(str::to_owned);
                let first = lines.next().unwrap_or_default();
                self.pasted.extend(lines);
                Ok(Typed::Line(first))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Interrupt),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(Failure::Run(Error::new(error).context("the terminal cannot be read"))),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(file) = &self.history {
            // A history that cannot be kept is nothing to stop for.
            let _ = file.parent().map(std::fs::create_dir_all);
            let _ = self.editor.save_history(file);
        }
    }
}

fn read_plain(input: &mut impl BufRead) -> Result<Typed, Failure> {
    let mut line = Vec::new();
    let length = input.read_until(b'\n', &mut line);
    match length.context("standard input cannot be read").map_err(Failure::Run)? {
        0 => Ok(Typed::End),
        _ => Ok(match std::str::from_utf8(&line) {
            Ok(line) => Typed::Line(line.trim_end_matches(['\r', '\n']).to_owned()),
            Err(_) => Typed::NoText(String::from_utf8_lossy(&line).into_owned()),
        }),
    }
}

/// The history's place in the user's data folder.
fn history_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = if cfg!(windows) {
        variable("APPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")))
    };
    Some(data?.join("tg-llava").join("history.txt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_end_with_the_input() {
        let mut input = "one\r\n\ntwo".as_bytes();
        for line in ["one", "", "two"] {
            assert_eq!(read_plain(&mut input).unwrap(), Typed::Line(line.into()));
        }
        assert_eq!(read_plain(&mut input).unwrap(), Typed::End);
        assert_eq!(read_plain(&mut &b"a\xff"[..]).unwrap(), Typed::NoText("a\u{fffd}".into()));
    }
}
