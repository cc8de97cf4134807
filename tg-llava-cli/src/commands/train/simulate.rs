//! `--simulate R/N`: what one of many ranks would need, measured on one device.

mod forecast;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use burn::train::Interrupter;
use tg_llava_train::log::{EvalRecord, StepRecord};
use tg_llava_train::parallel::{Simulated, World};
use tg_llava_train::run::Observer;

use self::forecast::{Measured, Traffic};
use super::start::{Start, follow};
use super::watch::{CtrlC, Display, listen};
use super::{TrainArgs, open_device, read_config, report};
use crate::console::{Console, print, print_json};
use crate::failure::Failure;

/// Steps where the run does not say how many.
const STEPS: usize = 8;

/// Ranks that share a machine where nothing else is said.
const LOCAL: usize = 8;

/// Reads `R/N` or `R/NxLOCAL`.
///
/// # Errors
/// A text for the user.
pub(super) fn parse(text: &str) -> Result<World, String> {
    let read = || {
        let (rank, rest) = text.split_once('/')?;
        let (size, local) = match rest.split_once('x') {
            Some((size, local)) => (size.parse().ok()?, local.parse().ok()?),
            None => (rest.parse().ok()?, rest.parse::<usize>().ok()?.min(LOCAL)),
        };
        Some((rank.parse().ok()?, size, local))
    };
    let (rank, size, local) =
        read().ok_or("it must be R/N, as in 0/8, or R/NxLOCAL, as in 0/16x8".to_owned())?;
    World::new(rank, size, local).map_err(|error| error.to_string())
}

/// Trains a few steps as the rank that `world` says, and tells what they took.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run(world: World, args: &TrainArgs, console: &Console) -> Result<(), Failure> {
    let mut config = read_config(args, console)?;
    let opened = open_device(args, args.compute.device, &mut config, console)?;
    config.run.max_steps = Some(config.run.max_steps.unwrap_or(STEPS));
    config.run.log_every = 1;
    console.note(format_args!(
        "rank {} of {}, {} a machine, is simulated: the numbers mean nothing, and nothing is saved",
        world.rank(),
        world.size(),
        world.local_size()
    ));
    let rank = Simulated::new(world);
    let traffic = rank.traffic();
    let start = Start::new(config, opened.clone(), world.size(), console)?;
    let session = start.session(args, Box::new(rank), console)?;
    report::opening(&session, &opened, console);
    let (interrupter, display) = (Interrupter::new(), Display::lines(console));
    listen(&interrupter, &display, CtrlC::Here);
    let times = Arc::new(Mutex::new(Times::default()));
    let mut observer = Timed {
        inner: display.observer(),
        interrupter,
        device: opened.device.clone(),
        last: Instant::now(),
        times: Arc::clone(&times),
    };
    match follow(session, &mut observer) {
        Ok(()) | Err(Failure::Interrupted) => {}
        Err(failure) => return Err(failure),
    }
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    let measured = Measured {
        world,
        device: opened.spec.to_string(),
        memory: times.memory.or_else(peak_memory),
        seconds: times.steps.iter().map(Duration::as_secs_f64).collect(),
        traffic: Traffic::a_step(&traffic, times.steps.len()),
    };
    match console.json {
        true => print_json(&measured.json(), false),
        false => print(&measured.text()),
    }
}

/// What is seen of the steps.
#[derive(Default)]
struct Times {
    steps: Vec<Duration>,
    /// The most that the device's pools held, in bytes.
    memory: Option<u64>,
}

/// Takes the time of each step.
struct Timed {
    inner: Box<dyn Observer + Send>,
    interrupter: Interrupter,
    device: Device,
    last: Instant,
    times: Arc<Mutex<Times>>,
}

impl Observer for Timed {
    fn step(&mut self, record: &StepRecord, progress: (usize, usize)) {
        let now = Instant::now();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.steps.push(now.duration_since(self.last));
        let held = self.device.memory_pool_usage().map(|usage| usage.bytes_reserved);
        times.memory = times.memory.max(held);
        drop(times);
        self.last = now;
        self.inner.step(record, progress);
    }

    fn evaluated(&mut self, record: &EvalRecord) {
        self.inner.evaluated(record);
        self.last = Instant::now();
    }

    fn note(&mut self, text: &str) {
        self.inner.note(text);
    }

    fn should_stop(&mut self) -> bool {
        self.interrupter.should_stop()
    }
}

/// The most memory that this process has held, in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_named_as_they_are_typed() {
        assert_eq!(parse("0/8"), Ok(World::new(0, 8, 8).unwrap()));
        assert_eq!(parse("2/3"), Ok(World::new(2, 3, 3).unwrap()));
        assert_eq!(parse("9/64"), Ok(World::new(9, 64, 8).unwrap()));
        assert_eq!(parse("9/16x4"), Ok(World::new(9, 16, 4).unwrap()));
        for (text, words) in [
            ("8", "R/N"),
            ("a/8", "R/N"),
            ("0/8x", "R/N"),
            ("8/8", "rank 8 of 8"),
            ("0/12", "12"),
            ("0/0", "0 of 0"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_most_memory_is_known() {
        assert!(peak_memory().unwrap() > 1 << 20);
    }
}
