//! With small shell scripts for ranks.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use super::*;

/// As [`Times::default`], but for how long a test is to wait for a process that does not end by itself.
fn times() -> Times {
    Times { end: Duration::from_secs(1), ..Times::default() }
}

/// Rank `rank`, which runs `script` and notes its process and its lines in `folder`.
fn rank(folder: &Path, rank: usize, script: &str) -> Member {
    let (log, file) = Log::open(&folder.join(format!("rank-{rank}.log"))).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder).stdin(Stdio::null());
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let child = command.spawn().unwrap();
    Member { name: format!("rank {rank}"), child, log: Some(log), kind: Kind::Rank }
}

const WORK: &str = "while :; do sleep 0.1; done";

/// What came of `members`, to whom `happens` before they are looked after; none of them may be left.
fn outcome(members: Vec<Member>, happens: impl FnOnce(Sender<Request>)) -> Result<(), Failure> {
    outcome_in(times(), members, happens)
}

fn outcome_in(
    times: Times,
    members: Vec<Member>,
    happens: impl FnOnce(Sender<Request>),
) -> Result<(), Failure> {
    let pids: Vec<u32> = members.iter().map(|member| member.child.id()).collect();
    let (sender, requests) = channel();
    happens(sender);
    let result = supervise(members, &requests, times, || ());
    for pid in pids {
        // Neither alive nor a zombie.
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
    }
    result
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn message(result: Result<(), Failure>) -> String {
    result.unwrap_err().message().unwrap()
}

#[test]
fn ranks_that_all_end_well() {
    let dir = tempfile::tempdir().unwrap();
    let members = (0..3).map(|r| rank(dir.path(), r, "exit 0")).collect();
    outcome(members, |_| ()).unwrap();
}

#[test]
fn a_killed_rank_is_named_and_ends_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let members: Vec<_> = (0..3).map(|r| rank(dir.path(), r, WORK)).collect();
    let pid = members[1].child.id().to_string();
    let result = outcome(members, |_| {
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    });
    assert!(matches!(result, Err(Failure::Run(_))));
    let text = message(result);
    assert!(text.starts_with("rank 1 was ended by signal 9 (SIGKILL"), "{text}");
}

#[test]
fn a_rank_that_fails_is_named_with_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rank-2.log"), "of an earlier start\n").unwrap();
    let fails =
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do echo line $i; done; echo 'error: no space' >&2; exit 1";
    // Those that end because of it may be seen first, but are not blamed.
    let members = vec![
        rank(dir.path(), 0, "exit 75"),
        rank(dir.path(), 1, "exit 75"),
        rank(dir.path(), 2, &format!("sleep 0.3; {fails}")),
    ];
    let patient = Times { settle: Duration::from_secs(60), ..times() };
    let text = message(outcome_in(patient, members, |_| ()));
    assert!(text.starts_with("rank 2 ended with exit code 1; the last lines of "), "{text}");
    assert!(text.ends_with("\n  line 13\n  error: no space") && text.contains("\n  line 3\n"), "{text}");
    assert!(!text.contains("line 2\n") && !text.contains("earlier"), "{text}");
}

#[test]
fn wrong_input_stays_wrong_input() {
    let dir = tempfile::tempdir().unwrap();
    let members = vec![rank(dir.path(), 0, "exit 2"), rank(dir.path(), 1, WORK)];
    assert_eq!(outcome(members, |_| ()).unwrap_err().exit_code(), 2);
}

#[test]
fn a_rank_that_does_not_want_to_end_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let members = vec![
        rank(dir.path(), 0, &format!("trap '' TERM; touch ready; {WORK}")),
        rank(dir.path(), 1, "while [ ! -e ready ]; do sleep 0.1; done; exit 3"),
    ];
    let text = message(outcome(members, |_| wait_for(&ready)));
    assert!(text.starts_with("rank 1 ended with exit code 3"), "{text}");
}

#[test]
fn a_stopped_rank_is_ended_with_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let members = vec![rank(dir.path(), 0, "kill -STOP $$"), rank(dir.path(), 1, "sleep 0.5; exit 75")];
    let text = message(outcome(members, |_| ()));
    assert!(text.starts_with("rank 1 ended because of another rank"), "{text}");
}

/// Saves when it is asked to, which takes a while.
const SAVES: &str =
    "trap 'sleep 0.3; touch saved-$$; exit 130' TERM; touch ready-$$; while :; do sleep 0.1; done";

#[test]
fn ranks_save_and_end_when_they_are_asked_to() {
    for request in [Request::Interrupt, Request::Terminate] {
        let dir = tempfile::tempdir().unwrap();
        let members: Vec<_> = (0..2).map(|r| rank(dir.path(), r, SAVES)).collect();
        let pids: Vec<u32> = members.iter().map(|member| member.child.id()).collect();
        let result = outcome(members, |sender| {
            pids.iter().for_each(|pid| wait_for(&dir.path().join(format!("ready-{pid}"))));
            // SIGTERM may come twice, to the program and to its group.
            sender.send(request).unwrap();
            if request == Request::Terminate {
                sender.send(request).unwrap();
            }
        });
        assert!(matches!(result, Err(Failure::Interrupted)));
        assert!(pids.iter().all(|pid| dir.path().join(format!("saved-{pid}")).exists()));
    }
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let stubborn = format!("trap '' TERM; touch ready-$$; {WORK}");
    let members: Vec<_> = (0..2).map(|r| rank(dir.path(), r, &stubborn)).collect();
    let pids: Vec<u32> = members.iter().map(|member| member.child.id()).collect();
    let result = outcome(members, |sender| {
        pids.iter().for_each(|pid| wait_for(&dir.path().join(format!("ready-{pid}"))));
        sender.send(Request::Interrupt).unwrap();
        sender.send(Request::Interrupt).unwrap();
    });
    assert!(matches!(result, Err(Failure::Interrupted)));
}

#[test]
fn mpirun_is_asked_by_a_signal_that_it_passes_on_and_ends_its_ranks_itself() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        format!("trap 'touch passed-on' USR1; trap 'touch ended; exit 143' TERM; touch ready; {WORK}");
    let member = Member { name: "mpirun".into(), kind: Kind::Mpirun, ..rank(dir.path(), 0, &script) };
    let passed_on = dir.path().join("passed-on");
    let (sender, requests) = channel();
    wait_for(&dir.path().join("ready"));
    let user = std::thread::spawn(move || {
        sender.send(Request::Interrupt).unwrap();
        wait_for(&passed_on);
        sender.send(Request::Interrupt).unwrap();
    });
    let patient = Times { end: Duration::from_secs(60), ..times() };
    assert!(matches!(supervise(vec![member], &requests, patient, || ()), Err(Failure::Interrupted)));
    user.join().unwrap();
    assert!(dir.path().join("ended").exists());
}

/// They have no handler for signals before their first step.
#[test]
fn ranks_that_are_stopped_while_they_load_are_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let members = (0..2).map(|number| rank(dir.path(), number, WORK)).collect();
    let result = outcome(members, |requests| requests.send(Request::Terminate).unwrap());
    assert!(matches!(result, Err(Failure::Interrupted)), "{result:?}");
}
