use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::engine::StepError;
use crate::log::LogError;
use crate::parallel::ParallelError;
use crate::start::StartError;

/// Why a run ended before its last step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A sample cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model could not compute.
    #[error(transparent)]
    Model(#[from] tg_llava_core::Error),
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The ranks cannot go on together.
    #[error(transparent)]
    Parallel(#[from] ParallelError),
    /// A log could not be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A loss or gradient is not a finite number.
    #[error(
        "step {step}: the loss is {loss} and the gradient's norm {grad_norm}; the samples: {samples}. Lower optim.lr, \
         look at these samples, or set optim.on_nan = \"skip\" to leave such steps out"
    )]
    NotFinite {
        /// The optimizer step, from 1.
        step: usize,
        /// Mean loss of the step.
        loss: f64,
        /// Norm of the gradient.
        grad_norm: f64,
        /// Ids of the step's samples.
        samples: String,
    },
    /// Another run has the output folder.
    #[error(
        "{dir}: another run is writing into this folder{holder}; wait for it, end it, or choose another output_dir"
    )]
    Busy {
        /// The folder.
        dir: PathBuf,
        /// The other run, where it is known, with a space before it.
        holder: String,
    },
    /// The output folder cannot be written.
    #[error("{path}: {source}; output_dir must be a folder that can be written")]
    Lock {
        /// The file that could not be made.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// No step changed a weight.
    #[error("nothing was learned in {steps} steps, and no model is saved: {reason}")]
    NothingLearned {
        /// Optimizer steps made.
        steps: usize,
        /// How many samples were left out, and the first reasons.
        reason: String,
    },
    /// The trainer gave up under burn-train.
    #[error("{0}")]
    Engine(String),
}

impl From<StepError> for RunError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Model(error) => error.into(),
            StepError::Parallel(error) => error.into(),
        }
    }
}
