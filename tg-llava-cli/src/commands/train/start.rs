//! From a configuration to a run of one rank, and to its end.

use burn::train::Interrupter;
use tg_llava_train::config::TrainConfig;
use tg_llava_train::parallel::watch::Progress as Sign;
use tg_llava_train::parallel::{Collective, World};
use tg_llava_train::run::{Observer, Session, SessionOptions, launch};
use tg_llava_train::start::{ModelSetup, TrainingData, open_data};

use super::dry_run::Plan;
use super::watch::Display;
use super::{TrainArgs, dry_run, failed, input, report};
use crate::console::Console;
use crate::device::Opened;
use crate::failure::Failure;
use crate::progress::Progress;

/// What a run needs, with the files of it that are small.
pub(super) struct Start {
    pub config: TrainConfig,
    pub setup: ModelSetup,
    pub data: TrainingData,
    pub opened: Opened,
}

impl Start {
    /// Reads what `config` names, for one of `ranks` ranks.
    ///
    /// # Errors
    /// [`Failure::Input`] where it cannot be used.
    pub(super) fn new(
        config: TrainConfig,
        opened: Opened,
        ranks: usize,
        console: &Console,
    ) -> Result<Self, Failure> {
        let setup = ModelSetup::new(&config).map_err(input)?;
        console.detail(format_args!("template {}", setup.template.name));
        let data = open_data(&config, &setup, ranks).map_err(input)?;
        Ok(Self { config, setup, data, opened })
    }

    /// What it will do as one of the ranks of `world`.
    pub(super) fn plan(&self, world: World) -> Plan<'_> {
        Plan { config: &self.config, setup: &self.setup, opened: &self.opened, world }
    }

    /// Loads the rest, together with the other ranks.
    ///
    /// # Errors
    /// [`Failure::Input`] where it cannot be used, [`Failure::Elsewhere`] where another rank cannot use it.
    pub(super) fn session(
        self,
        args: &TrainArgs,
        collective: Box<dyn Collective>,
        console: &Console,
    ) -> Result<Session, Failure> {
        let world = collective.world();
        if world.leads() {
            let here = if collective.is_simulated() { 1 } else { world.local_size() };
            dry_run::check_memory(&self.plan(world), here, console)?;
        }
        let Self { config, setup, data, opened } = self;
        let Opened { device, dtype, .. } = opened;
        let options = SessionOptions { device, dtype, restart: args.restart, collective };
        let (bar, sign) = (Progress::bar(console, "loading", || None), Sign::of_process());
        let mut progress = |count| {
            bar.advance(count);
            sign.tick();
        };
        Session::open(config, setup, data, options, &mut progress).map_err(failed)
    }
}

/// Trains, and shows it.
///
/// # Errors
/// Where the run fails, and [`Failure::Interrupted`] where it was stopped and saved.
pub(super) fn lead(
    session: Session,
    display: &Display,
    interrupter: &Interrupter,
    console: &Console,
) -> Result<(), Failure> {
    let renderer = display.renderer(interrupter);
    let summary = launch(session, renderer, interrupter, display.observer()).map_err(failed)?;
    report::closing(&summary, console)?;
    if summary.interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

/// Trains, and says so to `observer` alone.
///
/// # Errors
/// As [`lead`].
pub(super) fn follow(mut session: Session, observer: &mut dyn Observer) -> Result<(), Failure> {
    let summary = session.run(observer).map_err(failed)?;
    if summary.interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}
