//! A process that saves is killed at random moments, again and again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

const RUN: &str = "TG_LLAVA_KILL_TEST_RUN";
const PACE: &str = "TG_LLAVA_KILL_TEST_PACE";
const KEEP: NonZeroUsize = NonZeroUsize::new(2).unwrap();
const FILES: usize = 6;

/// Bytes of a file, so that a mixture of two saves would show.
fn bytes_of(step: usize, file: usize) -> Vec<u8> {
    (0..2000 + file).map(|at| (at + step * 7 + file) as u8).collect()
}

fn write_slowly(dir: &Path, step: usize, pause: Duration) -> io::Result<()> {
    for file in 0..FILES {
        let bytes = bytes_of(step, file);
        let mut out = fs::File::create(dir.join(format!("{file}.bin")))?;
        out.write_all(&bytes[..900])?;
        std::thread::sleep(pause);
        out.write_all(&bytes[900..])?;
    }
    Ok(())
}

/// The process that is killed; as a test of its own it does nothing. It goes on after the newest checkpoint,
/// saves every other step twice, so that replacing is hit as well, and says on stdout what is safe.
#[test]
fn saving_process() {
    let Ok(run) = std::env::var(RUN) else { return };
    let pause = Duration::from_micros(std::env::var(PACE).unwrap().parse().unwrap());
    let store = CheckpointStore::open(run, Some(KEEP)).unwrap();
    let first = store.latest().unwrap().checkpoint.map_or(1, |checkpoint| checkpoint.step() + 1);
    for step in first.. {
        for _ in 0..1 + step % 2 {
            store.save(step, |dir: &Path| write_slowly(dir, step, pause)).unwrap();
            println!("saved {step}");
        }
    }
}

fn start(run: &Path, pause: Duration) -> Child {
    let module = module_path!().split_once("::").unwrap().1;
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("{module}::saving_process"), "--exact", "--nocapture", "--test-threads=1"])
        .env(RUN, run)
        .env(PACE, pause.as_micros().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What the child had said when it was killed, `after` its first words about a save.
fn kill(mut child: Child, after: Duration) -> usize {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(io::Result::ok);
    // The harness writes the test's name in front of the first of the child's own lines.
    let mut steps = std::iter::from_fn(move || {
        lines.find_map(|line| line.split_once("saved ").and_then(|(_, step)| step.parse().ok()))
    });
    let first: usize = steps.next().expect("the child saves before it is killed");
    let begun = Instant::now();
    while begun.elapsed() < after {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    steps.last().unwrap_or(first)
}

#[test]
fn a_killed_save_loses_nothing_that_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // A small generator of our own: the moments differ from round to round, not from run to run.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    let mut leftovers = BTreeSet::new();
    for round in 0..60 {
        // Slow writes are cut in the closure, quick ones in hashing, renaming and rotation.
        let pause = Duration::from_micros(if round % 3 == 0 { 2000 } else { 0 });
        let said = kill(start(&run, pause), Duration::from_micros(below(25_000)));

        for entry in fs::read_dir(&run).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            leftovers
                .extend(name.strip_prefix("tmp-").and_then(|rest| rest.split('-').next().map(str::to_owned)));
        }
        let store = CheckpointStore::open(&run, Some(KEEP)).unwrap();
        let Latest { checkpoint, damaged } = store.latest().unwrap();
        assert!(damaged.is_empty(), "round {round}: {damaged:?}");
        let step = checkpoint.expect("saved before").step();
        assert!(step >= said, "round {round}: {step} is there, {said} was saved");
        for entry in fs::read_dir(&run).unwrap() {
            let path = entry.unwrap().path();
            if !path.file_name().unwrap().to_str().unwrap().starts_with("tmp-") {
                let step = Checkpoint::open(&path).unwrap().step();
                (0..FILES).for_each(|file| {
                    assert_eq!(fs::read(path.join(format!("{file}.bin"))).unwrap(), bytes_of(step, file));
                });
            }
        }
        store.clean().unwrap();
        store.save(step + 1, |dir: &Path| write_slowly(dir, step + 1, Duration::ZERO)).unwrap();
        assert_eq!(store.latest().unwrap().checkpoint.map(|checkpoint| checkpoint.step()), Some(step + 1));
        let left = fs::read_dir(&run).unwrap().count();
        assert_eq!(left, KEEP.get(), "round {round}: {step} and the one after, and nothing else");
    }
    assert!(leftovers.contains("checkpoint"), "no save was hit in the middle: {leftovers:?}");
}
