//! A training run from its first step to its last: batches, steps, validation, checkpoints, logs.

mod error;
mod evaluate;
mod fingerprint;
mod observer;
mod save;
mod session;
mod strategy;
mod stream;

pub use error::RunError;
pub use evaluate::{EvaluateOptions, Evaluation, Prediction, evaluate};
pub use observer::{Observer, Quiet};
pub use save::{SavedForm, save_trained};
pub use session::{Session, SessionOptions, Summary, total_steps, trainer_options};
pub use strategy::launch;
pub(crate) use stream::BatchStream;
