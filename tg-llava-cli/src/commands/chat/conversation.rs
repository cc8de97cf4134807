//! A conversation: lines in, answers out, until the user has enough.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context;
use serde_json::json;
use tg_llava_core::config::folder_name;

use super::input::{Input, Typed};
use super::line::{HELP, Line};
use super::session::{ChatSession, FinishReason};
use crate::console::print_json;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Whether the conversation goes on.
enum Next {
    GoOn,
    End,
}

/// A conversation that goes on.
struct Conversation<'a> {
    session: &'a mut ChatSession,
    dir: &'a Path,
    interrupt: &'a Interrupt,
    /// Whether somebody sees what goes wrong before asking on.
    interactive: bool,
    /// Whether anything went wrong.
    failed: bool,
    /// In a pipe, what could not be shown: what is asked behind it must not be answered without it.
    missing: Option<Missing>,
}

/// A picture, or a line that may have named one, that is not there for the next question.
struct Missing {
    what: String,
    /// Whether a question was refused for it. Pictures that are shown before that belong to the same question, and do
    /// not take its place.
    refused: bool,
}

/// Holds a conversation. What goes wrong with one line is printed, and the conversation goes on; in a pipe, it
/// ends with [`Failure::Check`] then.
pub fn run(session: &mut ChatSession, dir: &Path, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut input = Input::open()?;
    let interactive = input.is_interactive();
    if interactive {
        let name = folder_name(dir);
        session.console.note(format_args!("{name} is ready. Ask, show a picture with /image, or see /help."));
    }
    let mut conversation =
        Conversation { session, dir, interrupt, interactive, failed: false, missing: None };
    let mut pressed_before = false;
    loop {
        match input.next() {
            Ok(Typed::Line(line)) => {
                pressed_before = false;
                if let Next::End = conversation.line(&line)? {
                    break;
                }
            }
            Ok(Typed::NoText(line)) => conversation.no_text(&line)?,
            Ok(Typed::Interrupt) => {
                if std::mem::replace(&mut pressed_before, true) {
                    conversation.session.console.note("Ctrl-D quits.");
                }
            }
            Ok(Typed::End) => break,
            Err(failure) => return Err(failure),
        }
    }
    match conversation.failed && !interactive {
        true => Err(Failure::Check),
        false => Ok(()),
    }
}

impl Conversation<'_> {
    /// Does what a line says.
    fn line(&mut self, line: &str) -> Result<Next, Failure> {
        let done = match Line::parse(line) {
            Ok(Line::Question(question)) => return self.question(&question).map(|()| Next::GoOn),
            Ok(Line::Quit) => return Ok(Next::End),
            Ok(command) => self.command(command),
            Err(message) => {
                self.not_done(line, &Failure::input(message));
                return Ok(Next::GoOn);
            }
        };
        match done {
            Err(failure @ (Failure::ClosedOutput | Failure::Interrupted)) => return Err(failure),
            Err(failure) => self.say(&failure),
            Ok(()) => {}
        }
        Ok(Next::GoOn)
    }

    fn question(&mut self, question: &str) -> Result<(), Failure> {
        if let Some(missing) = &mut self.missing {
            missing.refused = true;
            let failure = Failure::input(format_args!(
                "not asked, since {} could not be shown; /image shows another picture, /reset begins without",
                missing.what
            ));
            self.session.withdraw();
            return self.question_failed(&failure);
        }
        match self.session.ask(question, self.interrupt) {
            Ok(answer) if answer.finish_reason != FinishReason::Interrupted => Ok(()),
            Ok(_) if self.interactive => Ok(()),
            Ok(_) => Err(Failure::Interrupted),
            Err(failure @ (Failure::ClosedOutput | Failure::Interrupted)) => Err(failure),
            Err(failure) => self.question_failed(&failure),
        }
    }

    fn command(&mut self, command: Line) -> Result<(), Failure> {
        let console = self.session.console;
        match command {
            Line::Image(source) => {
                let _busy = self.interrupt.busy();
                let shown = self.session.fetch(&source);
                if shown.is_err() {
                    self.miss(source.to_string());
                } else if self.missing.as_ref().is_some_and(|missing| missing.refused) {
                    self.missing = None;
                }
                shown?;
                console.note(format_args!("The next question is about {source}."));
            }
            Line::Reset => {
                self.session.reset();
                self.missing = None;
                console.note("Conversation and pictures are forgotten.");
            }
            Line::Save { file, replace } => {
                save(self.session, self.dir, &file, replace)?;
                let turns = self.session.turns().len();
                console.note(format_args!("{turns} turns are in {}.", file.display()));
            }
            Line::Help => console.say(HELP),
            Line::Blank | Line::Question(_) | Line::Quit => {}
        }
        Ok(())
    }

    /// Remembers that `what` could not be shown.
    fn miss(&mut self, what: String) {
        if !self.interactive {
            self.missing = Some(Missing { what, refused: false });
        }
    }

    /// A line that is no text is not done, whatever it was to be.
    fn no_text(&mut self, line: &str) -> Result<(), Failure> {
        let failure = Failure::input("standard input is not UTF-8 text");
        match Line::parse(line) {
            Ok(Line::Question(_)) => {
                if let Some(missing) = &mut self.missing {
                    missing.refused = true;
                    self.session.withdraw();
                }
                self.question_failed(&failure)
            }
            _ => {
                self.not_done(line, &failure);
                Ok(())
            }
        }
    }

    /// A command that cannot be read, which may have named a picture.
    fn not_done(&mut self, line: &str, failure: &Failure) {
        let line = line.trim();
        if line.starts_with("/image") {
            self.miss(format!("what `{line}` names"));
        }
        self.say(failure);
    }

    /// A question without an answer; with `--json`, it has its line like any other.
    fn question_failed(&mut self, failure: &Failure) -> Result<(), Failure> {
        self.say(failure);
        match self.session.console.json {
            true => print_json(&json!({ "error": failure.message() }), false),
            false => Ok(()),
        }
    }

    fn say(&mut self, failure: &Failure) {
        self.failed = true;
        if let Some(message) = failure.message() {
            self.session.console.error(message);
        }
    }
}

/// Writes the turns in the shape of LLaVA's data, with what one needs to go on from there.
fn save(session: &ChatSession, dir: &Path, file: &Path, replace: bool) -> Result<(), Failure> {
    if session.turns().is_empty() {
        return Err(Failure::input("there is nothing to save yet"));
    }
    let value = json!({
        "model": dir.display().to_string(),
        "template": session.template(),
        "images": session.pictures(),
        "conversations": session.turns(),
    });
    let text = serde_json::to_string_pretty(&value).map_err(|e| Failure::Run(e.into()))? + "\n";
    let opened = if replace { File::create(file) } else { File::create_new(file) };
    match opened.and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::input(format_args!(
            "{0}: there is such a file already; `/save! {0}` replaces it",
            file.display()
        ))),
        written => {
            written.with_context(|| format!("{}: cannot be written", file.display())).map_err(Failure::Run)
        }
    }
}
