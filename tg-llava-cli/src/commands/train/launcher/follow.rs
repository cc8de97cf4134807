//! A rank that was started by `train --nproc` lives no longer than that does.

use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, getppid, kill_process, test_kill_process};

/// Variable that tells a rank the number of the process that started it.
pub(in super::super) const LAUNCHER: &str = "TG_LLAVA_LAUNCHER";

/// How often a rank looks for a launcher that is not its parent.
const LOOK: Duration = Duration::from_secs(1);

/// From now on, ends this process where its launcher ends, however that happens. Whether there is one.
pub(in super::super) fn follow_launcher() -> bool {
    let number = std::env::var(LAUNCHER).ok().and_then(|number| number.parse().ok());
    let Some(launcher) = number.and_then(Pid::from_raw) else { return false };
    #[cfg(target_os = "linux")]
    if getppid() == Some(launcher)
        && rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok()
    {
        // It may have ended before the system was told.
        if getppid() != Some(launcher) {
            end();
        }
        return true;
    }
    // Behind mpirun, say. Where there is no thread to be had, whoever is between ends this one.
    let watch = move || {
        while test_kill_process(launcher).is_ok() {
            std::thread::sleep(LOOK);
        }
        end();
    };
    let _ = std::thread::Builder::new().name("launcher".into()).spawn(watch);
    true
}

fn end() {
    let _ = kill_process(getpid(), Signal::KILL);
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    //! Processes: this test program, started again with a role to play.

    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    const ROLE: &str = "TG_LLAVA_TEST_ROLE";

    fn this_program(role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "commands::train::launcher::follow::tests::process"]);
        command.env(ROLE, role).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// No test of its own: a launcher of two ranks, one of them behind another program, or a rank.
    #[test]
    fn process() {
        match std::env::var(ROLE).as_deref() {
            Ok("rank") => {
                assert!(follow_launcher());
                let folder = PathBuf::from(std::env::var("FOLDER").unwrap());
                std::fs::write(folder.join(std::process::id().to_string()), "").unwrap();
                std::thread::sleep(Duration::from_secs(600));
            }
            Ok("launcher") => {
                let own = std::process::id().to_string();
                let mut direct = this_program("rank").env(LAUNCHER, &own).spawn().unwrap();
                let rank = this_program("rank");
                let mut behind = Command::new("sh");
                behind.args(["-c", "\"$@\"; true", "sh"]).arg(rank.get_program()).args(rank.get_args());
                behind.env(ROLE, "rank").env(LAUNCHER, &own);
                let mut behind = behind.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                let _ = (direct.wait(), behind.wait());
            }
            _ => {}
        }
    }

    /// Whether a process still does something; one that ended may wait for somebody to notice.
    fn lives(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    }

    fn wait_for(mut what: impl FnMut() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(60), "it never came");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ranks(folder: &Path) -> Vec<String> {
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn ranks_end_with_their_launcher_however_that_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut launcher = this_program("launcher").env("FOLDER", dir.path()).spawn().unwrap();
        wait_for(|| ranks(dir.path()).len() == 2);
        let ranks = ranks(dir.path());
        assert!(ranks.iter().all(|pid| lives(pid)));
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        wait_for(|| !ranks.iter().any(|pid| lives(pid)));
    }
}
