//! A run from its start to its end: opened, stepped through, checked, saved.

mod checkpoint;
mod files;
mod open;
mod steps;
mod validation;

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{DType, Device};

use super::lock::OutputLock;
use crate::checkpoint::{Best, CheckpointStore, Fingerprint};
use crate::config::TrainConfig;
use crate::data::{DataPosition, SampleNotice};
use crate::engine::Trainer;
use crate::log::EvalRecord;
use crate::parallel::{Collective, Single};
use crate::start::{ModelSetup, TrainingData};

/// What a run needs besides its configuration.
pub struct SessionOptions {
    /// Where the model lives.
    pub device: Device,
    /// The number format of the computation.
    pub dtype: DType,
    /// Whether to begin anew although there are checkpoints.
    pub restart: bool,
    /// Those who train together; every one of them opens a session of its own.
    pub collective: Box<dyn Collective>,
}

impl SessionOptions {
    /// A run on one device.
    pub fn alone(device: Device, dtype: DType, restart: bool) -> Self {
        Self { device, dtype, restart, collective: Box::new(Single) }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Optimizer steps done.
    pub steps: usize,
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
    /// Loss of the last step.
    pub loss: f64,
    /// The last check on held-out samples.
    pub evaluation: Option<EvalRecord>,
    /// The best checkpoint.
    pub best: Option<Best>,
    /// Where the trained model, or after an interruption the last checkpoint, is.
    pub saved: PathBuf,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Samples that were left out or taught nothing.
    pub notices: Vec<SampleNotice>,
}

/// A run, ready to go on from where it stands. Its `output_dir` is its own as long as it lives.
pub struct Session {
    config: TrainConfig,
    setup: ModelSetup,
    data: Arc<TrainingData>,
    trainer: Trainer,
    store: CheckpointStore,
    fingerprint: Fingerprint,
    position: DataPosition,
    seconds: f64,
    total_steps: usize,
    best: Option<Best>,
    evaluation: Option<EvalRecord>,
    last_loss: f64,
    saved_at: Option<usize>,
    messages: Vec<String>,
    /// The rank that leads has it.
    _lock: Option<OutputLock>,
}

impl Session {
    /// The trainer with the model.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// The run's configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The samples.
    pub fn data(&self) -> &TrainingData {
        &self.data
    }

    /// The samples, to share.
    pub fn shared_data(&self) -> Arc<TrainingData> {
        Arc::clone(&self.data)
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self) -> usize {
        self.total_steps
    }

    /// What opening found worth telling.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }
}
