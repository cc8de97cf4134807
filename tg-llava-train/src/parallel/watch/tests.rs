//! Ranks as processes of their own: this test program, started again with a role to play.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use burn::tensor::Tensor;

use super::*;
use crate::parallel::{Launcher, ParallelError, World};

/// Limits that a busy machine keeps.
fn limits() -> Limits {
    Limits {
        beat: Duration::from_millis(100),
        patience: Duration::from_millis(400),
        silent: Duration::from_secs(6),
        joining: Duration::from_secs(8),
        step: Duration::from_secs(4),
        saving: Duration::from_secs(3600),
        validating: Duration::from_secs(3600),
    }
}

fn options(folder: &Path, rank: usize, size: usize) -> WatchOptions {
    let world = World::new(rank, size, size).unwrap();
    let placement = Placement { launcher: Launcher::Torchrun, world, job: Some("test".into()) };
    WatchOptions { folder: folder.to_owned(), placement, limits: limits(), progress: Progress::default() }
}

/// A collective in which the others never come.
struct Alone(World);

impl Alone {
    fn wait<T>() -> T {
        loop {
            std::thread::park();
        }
    }
}

impl Collective for Alone {
    fn world(&self) -> World {
        self.0
    }

    fn transpose(&mut self, _full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        Self::wait()
    }

    fn all_gather(
        &mut self,
        _shards: Vec<Tensor<1>>,
        _old: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        Self::wait()
    }

    fn sum_nodes(&mut self, _shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        Self::wait()
    }

    fn exchange(&mut self, _bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        Self::wait()
    }
}

/// What a rank's process does.
const ROLE: &str = "TG_LLAVA_TEST_RANK";

/// No test of its own: what [`Rank::start`] starts.
#[test]
fn rank_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.split(' ');
    let mut word = || words.next().unwrap().to_owned();
    let (folder, rank, size, role) = (word(), word(), word(), word());
    let options = options(Path::new(&folder), rank.parse().unwrap(), size.parse().unwrap());
    let (world, progress) = (options.placement.world, options.progress.clone());
    let watch = Watch::start(options, |trouble| {
        eprintln!("alarm: {trouble}");
        std::process::exit(75);
    });
    let watch = watch.unwrap();
    progress.enter(Phase::Step);
    match role.as_str() {
        "waits" => drop(watch.over(Alone(world)).exchange(b"")),
        "hangs" => Alone::wait(),
        "saves" => {
            let _saving = progress.during(Phase::Saving);
            Alone::wait()
        }
        "works" => loop {
            progress.tick();
            std::thread::sleep(Duration::from_millis(50));
        },
        "fails" => watch.end(Err("no space is left".into())),
        other => panic!("{other}"),
    }
}

struct Rank(Child);

impl Rank {
    fn start(folder: &Path, rank: usize, size: usize, role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "parallel::watch::tests::rank_process"]);
        command.env(ROLE, format!("{} {rank} {size} {role}", folder.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let ticks = if role == "saves" { 2 } else { 1 };
        let begun = |told: Heartbeat| told.standing.ticks >= ticks || told.end.is_some();
        wait_for(|| Heartbeat::read(folder, rank).is_some_and(begun));
        Self(child)
    }

    fn send(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Its exit code and what it said last.
    fn ended(mut self) -> (Option<i32>, String) {
        wait_for(|| !self.runs());
        let code = self.0.wait().unwrap().code();
        let mut text = String::new();
        io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut text).unwrap();
        (code, text)
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something that comes, however slow the machine is.
fn wait_for(mut what: impl FnMut() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(120), "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What rank 0 says that waits for rank 1, to which `happens` after it has taken its role.
fn trouble(role: &str, happens: impl FnOnce(&mut Rank)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut other = Rank::start(dir.path(), 1, 2, role);
    happens(&mut other);
    let (code, text) = Rank::start(dir.path(), 0, 2, "waits").ended();
    assert_eq!(code, Some(75), "{text}");
    assert!(text.contains("alarm: rank 1 "), "{text}");
    assert!(text.contains(&format!("(process {} on {}, ", other.0.id(), host())), "{text}");
    text
}

#[test]
fn a_killed_rank_is_named() {
    let text = trouble("works", |rank| rank.0.kill().unwrap());
    assert!(text.contains("training) gives no sign of life for"), "{text}");
}

#[test]
fn a_stopped_rank_is_named() {
    let text = trouble("works", |rank| rank.send("-STOP"));
    assert!(text.contains("training) gives no sign of life for"), "{text}");
    let text = trouble("saves", |rank| rank.send("-STOP"));
    assert!(text.contains("saving) gives no sign of life for"), "{text}");
}

#[test]
fn a_rank_that_failed_is_named_with_its_error() {
    let text = trouble("fails", |_| ());
    assert!(text.contains("failed: no space is left"), "{text}");
}

#[test]
fn a_hung_rank_ends_and_so_do_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let others = [0, 2].map(|rank| Rank::start(dir.path(), rank, 3, "waits"));
    let hung = Rank::start(dir.path(), 1, 3, "hangs");
    let pid = hung.0.id();
    for rank in others.into_iter().chain([hung]) {
        let (code, text) = rank.ended();
        assert_eq!(code, Some(75), "{text}");
        // Whoever heard of it from the others' last words says so.
        assert!(text.contains(&format!("rank 1 (process {pid} on ")) && text.contains("it hangs"), "{text}");
    }
}

#[test]
fn ranks_are_left_alone_as_long_as_the_others_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut saves = Rank::start(dir.path(), 1, 3, "saves");
    let mut works = Rank::start(dir.path(), 2, 3, "works");
    let mut waits = Rank::start(dir.path(), 0, 3, "waits");
    std::thread::sleep(2 * limits().silent);
    assert!(saves.runs() && works.runs() && waits.runs());
}

#[test]
fn a_rank_that_never_starts_is_named_whatever_an_earlier_run_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = options(dir.path(), 1, 2);
    old.placement.job = Some("earlier".into());
    Watch::start(old, |_| ()).unwrap().end(Ok(()));
    let (told, alarm) = mpsc::channel();
    let options = options(dir.path(), 0, 2);
    let _watch = Watch::start(options, move |trouble| told.send(trouble).unwrap()).unwrap();
    let trouble = alarm.recv_timeout(Duration::from_secs(120)).unwrap();
    assert!(matches!(trouble, Trouble { rank: 1, kind: TroubleKind::Absent(_), .. }), "{trouble}");
}

#[test]
fn what_a_collective_does_is_passed_on() {
    use crate::parallel::Single;
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), 0, 1);
    let progress = options.progress.clone();
    let watch = Watch::start(options, |trouble| panic!("{trouble}")).unwrap();
    let mut watched = watch.over(Single);
    assert_eq!(watched.world(), World::SINGLE);
    assert_eq!(watched.exchange(b"a").unwrap(), [b"a"]);
    assert!(watched.sum_nodes(Vec::new()).unwrap().is_empty());
    assert!(watched.transpose(Vec::new()).unwrap().is_empty());
    assert!(watched.all_gather(Vec::new(), Vec::new()).unwrap().is_empty());
    assert_eq!(progress.standing().collectives, 4);
    assert!(!progress.standing().inside && !watched.is_simulated());
    watch.end(Ok(()));
    let told = Heartbeat::read(dir.path(), 0).unwrap();
    assert_eq!(told.end, Some(End::Done));
}
