//! Several ranks in this process, which take turns: for machines with one device.

use std::thread::JoinHandle;

use burn::train::Interrupter;
use tg_llava_train::config::TrainConfig;
use tg_llava_train::parallel::{Collective, Local};

use super::log::{RankLog, log_path, rank_folder};
use super::start::{Start, follow, lead};
use super::watch::{CtrlC, Display, listen};
use super::{TrainArgs, input, open_device, read_config, report};
use crate::console::Console;
use crate::device::Opened;
use crate::failure::Failure;

/// What every rank's thread has.
#[derive(Clone)]
struct Shared {
    args: TrainArgs,
    config: TrainConfig,
    opened: Opened,
    interrupter: Interrupter,
}

/// Trains with `count` ranks.
///
/// # Errors
/// As [`super::run`]: the failure of the rank that failed by itself.
pub(super) fn run(count: usize, args: &TrainArgs, console: &Console) -> Result<(), Failure> {
    let mut config = read_config(args, console)?;
    let opened = open_device(args, args.compute.device, &mut config, console)?;
    let interrupter = Interrupter::new();
    let shared = Shared { args: args.clone(), config, opened, interrupter };
    let mut ranks = Local::group(count, count).map_err(input)?.into_iter();
    let first = ranks.next();
    let others: Vec<_> = ranks.map(|rank| start(rank, shared.clone())).collect();
    let mut results = vec![match first {
        Some(rank) => speak(rank, shared, console),
        None => Ok(()),
    }];
    for other in others {
        // Its message was noted where it panicked.
        results.push(
            other.and_then(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        );
    }
    first_cause(results)
}

/// The rank that is seen.
fn speak(rank: Local, shared: Shared, console: &Console) -> Result<(), Failure> {
    let Shared { args, config, opened, interrupter } = shared;
    rank.enter();
    let size = rank.world().size();
    let session =
        Start::new(config, opened.clone(), size, console)?.session(&args, Box::new(rank), console)?;
    report::opening(&session, &opened, console);
    let display = Display::new(&args, console);
    listen(&interrupter, &display, CtrlC::Here);
    lead(session, &display, &interrupter, console)
}

fn start(rank: Local, shared: Shared) -> Result<JoinHandle<Result<(), Failure>>, Failure> {
    let name = format!("rank {}", rank.world().rank());
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let Shared { args, config, opened, interrupter } = shared;
        rank.enter();
        let world = rank.world();
        let output_dir = config.output_dir.clone();
        let silent = Console::new(&args.output).silent();
        let session =
            Start::new(config, opened, world.size(), &silent)?.session(&args, Box::new(rank), &silent)?;
        // Not before it is known that the run may write there.
        let log = log_path(&rank_folder(&output_dir).map_err(Failure::Input)?, world.rank());
        follow(session, &mut RankLog::open(&log, &interrupter).map_err(Failure::Input)?)
    });
    thread.map_err(|error| Failure::Run(error.into()))
}

/// The result of all: the failure that is no other's consequence, where there is one.
fn first_cause(results: Vec<Result<(), Failure>>) -> Result<(), Failure> {
    let failures = results.into_iter().filter_map(Result::err);
    failures.min_by_key(|failure| matches!(failure, Failure::Elsewhere(_))).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_that_failed_by_itself_speaks_for_all() {
        let elsewhere = || Err(Failure::Elsewhere(anyhow::anyhow!("rank 1 is gone")));
        let own = || Err(Failure::input("no picture"));
        let said = |results| first_cause(results).unwrap_err().message().unwrap();
        assert_eq!(said(vec![elsewhere(), own(), elsewhere()]), "no picture");
        assert_eq!(said(vec![elsewhere(), Ok(())]), "rank 1 is gone");
        assert!(first_cause(vec![Ok(()), Ok(())]).is_ok());
        assert!(matches!(
            first_cause(vec![Err(Failure::Interrupted), Err(Failure::Interrupted)]),
            Err(Failure::Interrupted)
        ));
    }
}
