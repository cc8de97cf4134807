//! `train --nproc` where each rank is a process of its own: a copy of this program with the variables that `torchrun` sets.

mod follow;
mod supervisor;

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{SystemTime, UNIX_EPOCH};

use self::follow::LAUNCHER;
pub(super) use self::follow::follow_launcher;
use self::supervisor::{Kind, Log, Member, Times, supervise};
use super::log::{log_path, rank_folder};
use super::watch::Display;
use crate::failure::Failure;
use crate::interrupt::{self, Request};
use anyhow::Context;

/// The ranks to start, and with what.
pub(super) struct Launch {
    program: PathBuf,
    /// All arguments but `--nproc`.
    arguments: Vec<OsString>,
    ranks: usize,
    /// Where each rank but the first writes its lines.
    folder: PathBuf,
    /// Where the first shows what it does.
    display: Display,
}

impl Launch {
    /// `ranks` copies of this process, of which the first is seen on `display`.
    ///
    /// # Errors
    /// Where this program's own file is not to be found, or `output_dir` cannot be written.
    pub(super) fn new(ranks: usize, output_dir: &Path, display: Display) -> Result<Self, Failure> {
        let program = std::env::current_exe().context("this program's own file is not to be found");
        Ok(Self {
            program: program.map_err(Failure::Run)?,
            arguments: without_nproc(std::env::args_os().skip(1)),
            ranks,
            folder: rank_folder(output_dir).map_err(Failure::Input)?,
            display,
        })
    }

    /// Starts a process for each rank, of which the first shows what it says, and waits for their end.
    ///
    /// # Errors
    /// As [`supervise`].
    pub(super) fn processes(&self) -> Result<(), Failure> {
        let job = job();
        let port = free_port().context("no free port on 127.0.0.1").map_err(Failure::Run)?;
        self.supervise(|members| {
            for rank in 0..self.ranks {
                let mut command = Command::new(&self.program);
                command.args(&self.arguments).env(LAUNCHER, std::process::id().to_string());
                for (name, value) in [("RANK", rank), ("LOCAL_RANK", rank)] {
                    command.env(name, value.to_string());
                }
                for name in ["WORLD_SIZE", "LOCAL_WORLD_SIZE"] {
                    command.env(name, self.ranks.to_string());
                }
                command.env("TORCHELASTIC_RUN_ID", &job).env_remove("TORCHELASTIC_RESTART_COUNT");
                if std::env::var_os("NCCL_COMM_ID").is_none() {
                    command.env("NCCL_COMM_ID", format!("127.0.0.1:{port}"));
                }
                let mut log = None;
                if rank > 0 {
                    let path = log_path(&self.folder, rank);
                    let (tail, file) = Log::open(&path)?;
                    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
                    log = Some(tail);
                }
                let child = command.spawn().with_context(|| format!("rank {rank} cannot be started"))?;
                members.push(Member { name: format!("rank {rank}"), child, log, kind: Kind::Rank });
            }
            Ok(())
        })
    }

    /// Has `mpirun` start the ranks, and waits for its end.
    ///
    /// # Errors
    /// As [`supervise`].
    #[cfg(feature = "mpi")]
    pub(super) fn mpirun(&self, mpirun: &Path) -> Result<(), Failure> {
        use std::os::unix::process::CommandExt;
        self.supervise(|members| {
            let mut command = Command::new(mpirun);
            command.arg("-n").arg(self.ranks.to_string()).arg(&self.program).args(&self.arguments);
            // More ranks than cores are slow, and nothing worse: so for Open MPI 4 and 5.
            command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
            command.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
            command.env(LAUNCHER, std::process::id().to_string());
            // Ctrl-C on the terminal would have it kill the ranks; it passes SIGUSR1 on to them.
            command.process_group(0).stdin(Stdio::null());
            let child = command.spawn().with_context(|| mpirun.display().to_string())?;
            let name = format!("mpirun, whose ranks write into {},", self.folder.display());
            members.push(Member { name, child, log: None, kind: Kind::Mpirun });
            Ok(())
        })
    }

    fn supervise(&self, start: impl FnOnce(&mut Vec<Member>) -> anyhow::Result<()>) -> Result<(), Failure> {
        let (sender, requests) = channel();
        // Before the first rank starts, so that no signal ends this process alone.
        interrupt::listen(&[Request::Interrupt, Request::Terminate], move |request| {
            let _ = sender.send(request);
        });
        let mut members = Vec::new();
        let started = start(&mut members);
        if let Err(error) = started {
            supervisor::end(members);
            return Err(Failure::Run(error));
        }
        supervise(members, &requests, Times::default(), || self.display.leave())
    }
}

/// A name for this start that no earlier one had.
fn job() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), now.as_millis())
}

/// A port that nobody listens at, a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The arguments without the first `--nproc` and its number.
fn without_nproc(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut rest = arguments.into_iter().peekable();
    let mut kept = Vec::new();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if text == "--nproc" {
            rest.next_if(|next| {
                let next = next.to_string_lossy();
                next == "all" || next.parse::<usize>().is_ok()
            });
        } else if !text.starts_with("--nproc=") {
            kept.push(argument);
            continue;
        }
        break;
    }
    kept.extend(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_started_without_nproc() {
        let cut = |line: &str| {
            let kept = without_nproc(line.split(' ').map(OsString::from));
            kept.into_iter().map(|argument| argument.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        for (line, kept) in [
            ("train --nproc 8 --plain", "train --plain"),
            ("train --nproc=8 --plain", "train --plain"),
            ("train --nproc all --plain", "train --plain"),
            ("train --nproc --plain", "train --plain"),
            ("train --plain --nproc", "train --plain"),
            ("train --plain", "train --plain"),
            // What stands behind is LLaVA's.
            ("train --nproc 2 torchrun --nproc 8 train.py", "train torchrun --nproc 8 train.py"),
            ("train --nproc 2 --nproc_per_node=8", "train --nproc_per_node=8"),
        ] {
            assert_eq!(cut(line), kept);
        }
    }
}
