//! A conversation: lines in, answers out, until the user has enough.

use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::input::{Input, Typed};
use super::line::{HELP, Line};
use super::session::{FinishReason, Session};
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Whether the conversation goes on.
enum Next {
    GoOn,
    End,
}

/// Holds a conversation. What goes wrong with one line is printed, and the conversation goes on.
pub fn run(session: &mut Session, dir: &Path, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut input = Input::open()?;
    if input.is_interactive() {
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
        session.console.note(format_args!("{name} is ready. Ask, show a picture with /image, or see /help."));
    }
    let mut pressed_before = false;
    loop {
        let line = match input.next()? {
            Typed::Line(line) => line,
            Typed::Interrupt => {
                if std::mem::replace(&mut pressed_before, true) {
                    session.console.note("Ctrl-D quits.");
                }
                continue;
            }
            Typed::End => return Ok(()),
        };
        pressed_before = false;
        match handle(session, &line, dir, interrupt) {
            Ok(Next::GoOn) => {}
            Ok(Next::End) => return Ok(()),
            Err(Failure::Interrupted) if input.is_interactive() => {}
            Err(failure @ (Failure::ClosedOutput | Failure::Interrupted)) => return Err(failure),
            Err(failure) => {
                if let Some(message) = failure.message() {
                    session.console.error(message);
                }
            }
        }
    }
}

fn handle(session: &mut Session, line: &str, dir: &Path, interrupt: &Interrupt) -> Result<Next, Failure> {
    let console = session.console;
    match Line::parse(line).map_err(Failure::input)? {
        Line::Blank => {}
        Line::Question(question) => {
            let answer = session.ask(&question, interrupt)?;
            if answer.finish_reason == FinishReason::Interrupted {
                return Err(Failure::Interrupted);
            }
        }
        Line::Image(source) => {
            let _busy = interrupt.busy();
            session.fetch(&source)?;
            console.note(format_args!("The next question is about {source}."));
        }
        Line::Reset => {
            session.reset();
            console.note("Conversation and pictures are forgotten.");
        }
        Line::Save(file) => {
            save(session, dir, &file)?;
            console.note(format_args!("{} turns are in {}.", session.turns().len(), file.display()));
        }
        Line::Help => console.say(HELP),
        Line::Quit => return Ok(Next::End),
    }
    Ok(Next::GoOn)
}

/// Writes the turns in the shape of LLaVA's data, with what one needs to go on from there.
fn save(session: &Session, dir: &Path, file: &Path) -> Result<(), Failure> {
    if session.turns().is_empty() {
        return Err(Failure::input("there is nothing to save yet"));
    }
    let value = json!({
        "model": dir.display().to_string(),
        "template": session.template(),
        "images": session.pictures(),
        "conversations": session.turns(),
    });
    let text = serde_json::to_string_pretty(&value).map_err(|e| Failure::Run(e.into()))?;
    let written = std::fs::write(file, text + "\n");
    written.with_context(|| format!("{}: cannot be written", file.display())).map_err(Failure::Run)
}
