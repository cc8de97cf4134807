//! Processes that live and end together.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::super::log::open_log;
use crate::failure::{ELSEWHERE, Failure};
use crate::interrupt::{self, Request};

/// Exit code of a rank that is not to blame.
const BECAUSE_OF_ANOTHER: i32 = ELSEWHERE as i32;

/// Lines of a log that are shown where its rank ended badly.
const SHOWN_LINES: usize = 12;

/// Bytes of a log that are looked through for them.
const SHOWN_BYTES: u64 = 8 << 10;

/// A process that was started: a rank, or `mpirun` with all of them.
#[derive(Debug)]
pub(super) struct Member {
    /// What it is called.
    pub name: String,
    pub child: Child,
    /// Where its lines go, where nobody sees them.
    pub log: Option<Log>,
    pub kind: Kind,
}

/// What a process is, which decides how it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A rank.
    Rank,
    /// `mpirun`, which passes SIGUSR1 on to its ranks, and ends them where it is ended itself, unless by SIGKILL.
    Mpirun,
}

impl Kind {
    /// What asks it to save and to end.
    fn asks(self) -> Signal {
        match self {
            Self::Rank => Signal::TERM,
            Self::Mpirun => Signal::USR1,
        }
    }
}

/// A file that a process writes its lines to, behind what is in there already.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    start: u64,
}

impl Log {
    /// Opens `path`, which others may have written to, for one more process.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, File)> {
        let file = open_log(path)?;
        let start = file.metadata()?.len();
        Ok((Self { path: path.to_owned(), start }, file))
    }

    /// The last lines that its process wrote.
    fn tail(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(self.start.max(end.saturating_sub(SHOWN_BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n"))
    }
}

/// How long what may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// From one look at the processes to the next.
    pub look: Duration,
    /// From the first bad end to the verdict: the end of one rank soon ends others, and may be seen after theirs.
    pub settle: Duration,
    /// What is left to the others to end by themselves.
    pub end: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { look: Duration::from_millis(50), settle: Duration::from_secs(1), end: Duration::from_secs(10) }
    }
}

/// Waits until all of `members` have ended, and ends them where one ends badly or `requests` say so. `tidy` is called where one did not
/// end by itself, and may have left a terminal as it was.
///
/// # Errors
/// [`Failure::Interrupted`] where they were stopped, and else with the name of the one that ended badly first, its exit code or
/// signal, and the last lines of its log.
pub(super) fn supervise(
    members: Vec<Member>,
    requests: &Receiver<Request>,
    times: Times,
    tidy: impl FnOnce(),
) -> Result<(), Failure> {
    let mut group = Group { members, ended: Vec::new(), asked: false };
    let result = group.supervise(requests, times);
    if group.ended.iter().any(|end| end.status.code().is_none()) {
        tidy();
    }
    result
}

/// Ends `members` at once.
pub(super) fn end(members: Vec<Member>) {
    drop(Group { members, ended: Vec::new(), asked: false });
}

struct Group {
    members: Vec<Member>,
    /// Who has ended, in the order in which that was seen.
    ended: Vec<End>,
    /// Whether they were asked to end.
    asked: bool,
}

struct End {
    member: Member,
    status: ExitStatus,
}

impl Group {
    fn supervise(&mut self, requests: &Receiver<Request>, times: Times) -> Result<(), Failure> {
        let (mut pressed, mut verdict) = (false, None);
        // When to judge, and when to make an end of those that are left.
        let (mut judge_at, mut kill_at) = (None, None);
        while !self.reap() {
            match requests.recv_timeout(times.look) {
                Ok(Request::Interrupt) if pressed => {
                    self.kill(times);
                    return Err(Failure::Interrupted);
                }
                Ok(request) => {
                    pressed |= request == Request::Interrupt;
                    self.asked = true;
                    self.members.iter().for_each(|member| send(member, member.kind.asks()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(times.look),
            }
            let now = Instant::now();
            if self.ended.iter().any(|end| end.is_bad(self.asked)) {
                let judge_at = *judge_at.get_or_insert(now + times.settle);
                if verdict.is_none() && now >= judge_at {
                    verdict = self.verdict();
                    kill_at = Some(now + times.end);
                    self.members.iter().for_each(|member| send(member, Signal::TERM));
                }
            }
            if kill_at.is_some_and(|at| now >= at) {
                self.kill(times);
            }
        }
        if let Some(failure) = verdict.or_else(|| self.verdict()) {
            return Err(failure);
        }
        match self.ended.iter().any(|end| end.was_stopped(self.asked)) {
            true => Err(Failure::Interrupted),
            false => Ok(()),
        }
    }

    /// Notes who has ended since; whether all have.
    fn reap(&mut self) -> bool {
        let mut left = Vec::new();
        for mut member in std::mem::take(&mut self.members) {
            match member.child.try_wait() {
                Ok(Some(status)) => self.ended.push(End { member, status }),
                // No child of ours: nothing can be learned of it any more.
                Err(_) => {}
                Ok(None) => left.push(member),
            }
        }
        self.members = left;
        self.members.is_empty()
    }

    /// Ends at once whoever is left, and waits for that.
    fn kill(&mut self, times: Times) {
        let mpirun = self.members.iter().filter(|member| member.kind == Kind::Mpirun);
        mpirun.for_each(|member| send(member, Signal::TERM));
        let until = Instant::now() + times.end;
        while self.members.iter().any(|member| member.kind == Kind::Mpirun) && Instant::now() < until {
            self.reap();
            std::thread::sleep(times.look);
        }
        for mut member in self.members.drain(..) {
            // Both fail only where it has ended already.
            let _ = member.child.kill();
            if let Ok(status) = member.child.wait() {
                self.ended.push(End { member, status });
            }
        }
    }

    /// Whose fault a bad end is, as far as that can be known, in words.
    fn verdict(&self) -> Option<Failure> {
        let bad = self.ended.iter().filter(|end| end.is_bad(self.asked));
        // Whoever was killed did not choose to; whoever says that another one is to blame is none.
        let end = bad.min_by_key(|end| match end.status.code() {
            None => 0,
            Some(BECAUSE_OF_ANOTHER) => 2,
            Some(_) => 1,
        })?;
        let message = end.describe();
        Some(match end.status.code() {
            Some(2) => Failure::input(message),
            _ => Failure::Run(anyhow::Error::msg(message)),
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill(Times::default());
    }
}

impl End {
    /// Whether it ended otherwise than after its last step, or after it was stopped and had saved.
    fn is_bad(&self, asked: bool) -> bool {
        !self.status.success() && !self.was_stopped(asked)
    }

    /// Whether it ended since it was `asked` to: after it had saved, or before it had anything to save.
    fn was_stopped(&self, asked: bool) -> bool {
        let by = |signal: Signal| self.status.signal() == Some(signal.as_raw());
        let by_request = by(self.member.kind.asks()) || by(Signal::INT) || by(Signal::TERM);
        self.status.code() == Some(interrupt::EXIT_CODE) || asked && by_request
    }

    fn describe(&self) -> String {
        let name = &self.member.name;
        let mut text = match (self.status.code(), self.status.signal()) {
            (Some(BECAUSE_OF_ANOTHER), _) => format!("{name} ended because of another rank"),
            (Some(code), _) => format!("{name} ended with exit code {code}"),
            (None, Some(signal)) => format!("{name} was ended by signal {}", signal_name(signal)),
            (None, None) => format!("{name} ended"),
        };
        let Some(log) = &self.member.log else { return text };
        match log.tail() {
            Ok(lines) if lines.is_empty() => text += &format!("; {} says nothing", log.path.display()),
            Ok(lines) => {
                text += &format!("; the last lines of {}:\n", log.path.display());
                text += &lines.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
            }
            Err(error) => text += &format!("; {}: {error}", log.path.display()),
        }
        text
    }
}

fn send(member: &Member, signal: Signal) {
    // It is a child that was not waited for yet, so that its number is still its own.
    if let Some(pid) = i32::try_from(member.child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn signal_name(signal: i32) -> String {
    let known = [
        (Signal::KILL, "SIGKILL; the system does so where memory runs out"),
        (Signal::TERM, "SIGTERM"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::BUS, "SIGBUS"),
        (Signal::ILL, "SIGILL; the program was built for another processor"),
        (Signal::INT, "SIGINT"),
        (Signal::HUP, "SIGHUP"),
    ];
    match known.into_iter().find(|(known, _)| known.as_raw() == signal) {
        Some((_, name)) => format!("{signal} ({name})"),
        None => signal.to_string(),
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
