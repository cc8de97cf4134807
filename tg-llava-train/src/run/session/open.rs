//! The start of a run, or its going on from a checkpoint.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tg_llava_core::weights::LoadReport;

use super::super::fingerprint::{assumed, fingerprint};
use super::super::lock::OutputLock;
use super::super::options::{total_steps, trainer_options};
use super::checkpoint::restore;
use super::{Session, SessionOptions};
use crate::checkpoint::{Best, Checkpoint, CheckpointStore, Fingerprint};
use crate::config::TrainConfig;
use crate::data::DataPosition;
use crate::engine::Trainer;
use crate::parallel::{Collective, ParallelError, agree, together};
use crate::run::RunError;
use crate::start::{ModelSetup, StartError, TrainingData, load_weights};

/// What the ranks tell one another before a run.
#[derive(Serialize, Deserialize)]
struct Greeting {
    program: String,
    fingerprint: Fingerprint,
    /// The step of the checkpoint to go on from, and the best one so far, as the rank that leads found them.
    checkpoint: Option<usize>,
    best: Option<Best>,
}

impl Session {
    /// Loads everything; goes on from the newest checkpoint in `output_dir` that is whole, if there is one.
    /// `progress` is told how many values each tensor brought.
    ///
    /// # Errors
    /// Where the start, the data or a checkpoint cannot be used, there is no step to make, or the ranks were started
    /// differently.
    pub fn open(
        config: TrainConfig,
        setup: ModelSetup,
        data: TrainingData,
        options: SessionOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, RunError> {
        let SessionOptions { device, dtype, restart, mut collective } = options;
        let world = collective.world();
        let total_steps = total_steps(&config, data.len(), world.size());
        let keep = config.run.save_total_limit.and_then(NonZeroUsize::new);
        let mut messages = Vec::new();
        let simulated = collective.is_simulated();
        let mut lead = || -> Result<_, RunError> {
            if total_steps == 0 {
                let reason = "run.max_steps or run.epochs leaves none".to_owned();
                return Err(StartError::NoSteps { reason }.into());
            }
            if !world.leads() || simulated {
                return Ok((None, None, None));
            }
            let lock = OutputLock::take(&config.output_dir)?;
            let store = CheckpointStore::open(&config.output_dir, keep)?;
            let cleaned = store.clean()?;
            let cleaned = cleaned.iter().map(|path| path.display());
            messages.extend(cleaned.map(|path| format!("removed what an interrupted save left: {path}")));
            let latest = store.latest()?;
            messages.extend(latest.damaged.iter().map(|damaged| format!("not used: {damaged}")));
            let checkpoint = latest.checkpoint.filter(|_| !restart);
            let best = if checkpoint.is_some() { store.best_record()? } else { None };
            Ok((Some(lock), checkpoint, best))
        };
        let led = lead();
        let fingerprint = || fingerprint(&config, &setup, &data, world.size());
        let (lock, greeting) = match led.and_then(|led| Ok((led, fingerprint()?))) {
            Ok(((lock, checkpoint, best), fingerprint)) => {
                let program = env!("CARGO_PKG_VERSION").to_owned();
                let checkpoint = checkpoint.map(|checkpoint: Checkpoint| checkpoint.step());
                (lock, Ok(Greeting { program, fingerprint, checkpoint, best }))
            }
            Err(error) => (None, Err(error)),
        };
        let Greeting { fingerprint, checkpoint, best, .. } = greet(collective.as_mut(), greeting)?;
        let store = CheckpointStore::at(&config.output_dir, keep);
        let checkpoint = checkpoint.map(|step| Checkpoint::verified(step, store.path_of(step)));
        // All ranks load before any goes on; one that cannot says why.
        let load = || -> Result<_, RunError> {
            let state = match &checkpoint {
                Some(checkpoint) => {
                    let (state, untold) = checkpoint.state(&fingerprint, assumed())?;
                    if !untold.is_empty() {
                        let (path, untold) = (checkpoint.path().display(), untold.join(", "));
                        messages.push(format!(
                        "{path} was written by an older version and does not tell whether these are as they were: {untold}"
                    ));
                    }
                    Some(state)
                }
                None => None,
            };
            let folder = checkpoint.as_ref().map(Checkpoint::path);
            let started = load_weights(&config, &setup, folder, &device.autodiff(), dtype, progress)?;
            if !started.report.initialised.is_empty() {
                let count = started.report.initialised.len();
                let what = if config.lora.is_some() { "bridges and the adapter" } else { "bridges" };
                messages.push(format!("{count} tensors of the {what} start fresh"));
            }
            messages.extend(formats(&started.report));
            if !started.report.not_finite.is_empty() {
                messages
                    .push(format!("values that are not finite in {}", started.report.not_finite.join(", ")));
            }
            Ok((started.model, state))
        };
        let loaded = load();
        let (model, state) = together(collective.as_mut(), loaded)?;
        let trainer_options = trainer_options(&config, total_steps, dtype);
        let mut trainer = Trainer::with_ranks(model, trainer_options, collective);
        let mut session_start = (DataPosition::default(), 0.0, None);
        if let (Some(checkpoint), Some(state)) = (&checkpoint, &state) {
            let restored = restore(&mut trainer, checkpoint, state);
            together(trainer.collective(), restored)?;
            messages.push(format!("going on after step {} from {}", state.step, checkpoint.path().display()));
            // A step is saved before it is checked, so the checkpoint may not know yet that it is the best.
            let best = best.filter(|best| best.step <= state.step).or(state.best.clone());
            session_start = (state.position, state.seconds, best);
        }
        let (position, seconds, best) = session_start;
        Ok(Self {
            saved_at: state.map(|state| state.step),
            config,
            setup,
            data: Arc::new(data),
            trainer,
            store,
            fingerprint,
            position,
            seconds,
            total_steps,
            best,
            evaluation: None,
            last_loss: f64::NAN,
            messages,
            _lock: lock,
        })
    }
}

/// What all ranks agree on; the checkpoint is that of the rank that leads.
fn greet(
    collective: &mut dyn Collective,
    greeting: Result<Greeting, RunError>,
) -> Result<Greeting, RunError> {
    let mut all = agree(collective, greeting)?.into_iter();
    let first = all.next().ok_or_else(|| RunError::Engine("no rank answers".into()))?;
    for (rank, other) in (1..).zip(all) {
        let theirs = &other.fingerprint;
        let unlike = first.fingerprint.iter().filter(|(name, value)| theirs.get(*name) != Some(value));
        let mut what: Vec<String> = unlike.map(|(name, _)| name.clone()).collect();
        if other.program != first.program {
            what.push(format!("version {} of the program", other.program));
        }
        if !what.is_empty() {
            return Err(ParallelError::Unlike { rank, what: what.join(", ") }.into());
        }
    }
    Ok(first)
}

/// What of the decoder is held otherwise than its files hold it, or than was asked for.
fn formats(report: &LoadReport) -> Vec<String> {
    let floats = report.dequantised.iter().map(|(format, keys)| {
        format!("{} tensors that the files hold in {format} are held as floats (see lora.base)", keys.len())
    });
    let mut others: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (matrix, asked) in report.quantised.iter().filter_map(|matrix| Some((matrix, matrix.other()?))) {
        *others.entry((asked, matrix.format)).or_default() += 1;
    }
    let others = others.into_iter().map(|((asked, format), count)| {
        format!("{count} matrices stay in {format}, as the files hold them, where {asked} was asked for")
    });
    floats.chain(others).collect()
}
