//! The start of a run, or its going on from a checkpoint.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::super::fingerprint::fingerprint;
use super::super::lock::OutputLock;
use super::super::options::{total_steps, trainer_options};
use super::checkpoint::restore;
use super::{Session, SessionOptions};
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::config::TrainConfig;
use crate::data::DataPosition;
use crate::engine::Trainer;
use crate::run::RunError;
use crate::start::{ModelSetup, StartError, TrainingData, load_weights};

impl Session {
    /// Loads everything; goes on from the newest checkpoint in `output_dir` that is whole, if there is one.
    /// `progress` is told how many values each tensor brought.
    ///
    /// # Errors
    /// Where the start, the data or a checkpoint cannot be used, or there is no step to make.
    pub fn open(
        config: TrainConfig,
        setup: ModelSetup,
        data: TrainingData,
        options: &SessionOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, RunError> {
        let total_steps = total_steps(&config, data.len());
        if total_steps == 0 {
            let reason = "run.max_steps or run.epochs leaves none".to_owned();
            return Err(StartError::NoSteps { reason }.into());
        }
        let lock = OutputLock::take(&config.output_dir)?;
        let keep = config.run.save_total_limit.and_then(NonZeroUsize::new);
        let store = CheckpointStore::open(&config.output_dir, keep)?;
        let mut messages: Vec<String> = store
            .clean()?
            .iter()
            .map(|path| format!("removed what an interrupted save left: {}", path.display()))
            .collect();
        let latest = store.latest()?;
        messages.extend(latest.damaged.iter().map(|damaged| format!("not used: {damaged}")));
        let checkpoint = latest.checkpoint.filter(|_| !options.restart);
        let fingerprint = fingerprint(&config, &setup, &data)?;
        let state = match &checkpoint {
            Some(checkpoint) => {
                let (state, untold) = checkpoint.state(&fingerprint)?;
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
        let device = options.device.clone().autodiff();
        let started = load_weights(&config, &setup, folder, &device, options.dtype, progress)?;
        if !started.report.initialised.is_empty() {
            let count = started.report.initialised.len();
            messages.push(format!("{count} tensors of the bridges start fresh"));
        }
        if !started.report.not_finite.is_empty() {
            messages.push(format!("values that are not finite in {}", started.report.not_finite.join(", ")));
        }
        let mut trainer = Trainer::new(started.model, trainer_options(&config, total_steps, options.dtype));
        let mut session_start = (DataPosition::default(), 0.0, None);
        if let (Some(checkpoint), Some(state)) = (&checkpoint, &state) {
            restore(&mut trainer, checkpoint, state)?;
            messages.push(format!("going on after step {} from {}", state.step, checkpoint.path().display()));
            // A step is saved before it is checked, so the checkpoint may not know yet that it is the best.
            let best = store.best_record()?.filter(|best| best.step <= state.step).or(state.best.clone());
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
