//! A training run from its first step to its last: batches, steps, validation, checkpoints, logs.

mod ask;
mod error;
mod evaluate;
mod fingerprint;
mod lock;
mod observer;
mod options;
mod save;
mod session;
mod strategy;
mod stream;

pub use error::RunError;
pub use evaluate::{EvaluateOptions, Evaluation, Prediction, Progress, SampleFailure, evaluate};
pub use observer::{Observer, Quiet};
pub use options::{total_steps, trainer_options};
pub use save::{SavedForm, save_trained};
pub use session::{Session, SessionOptions, Summary};
pub use strategy::launch;
pub(crate) use stream::BatchStream;
