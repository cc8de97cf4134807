//! The trainer's parts as burn-train takes them: a model, an optimizer, a schedule and a loader that its own strategies can train with.
//!
//! ```no_run
//! use burn::train::{Learner, SupervisedTraining};
//! # use tg_llava_train::{engine::TrainerOptions, learner::{EpochLoader, Learning}, start::TrainingData};
//! # fn train(model: tg_llava_core::model::TgLlava, options: TrainerOptions, data: std::sync::Arc<TrainingData>) {
//! let learning = Learning::new(model, options);
//! let (optimizer, rate) = (learning.optimizer(), learning.rate());
//! let loader = std::sync::Arc::new(EpochLoader::new(data, 8));
//! let training = SupervisedTraining::new("run", loader.clone(), loader).num_epochs(1);
//! let trained = training.launch(Learner::new(learning, optimizer, rate)).model.into_model();
//! # }
//! ```
//!
//! `tg-llava-cli train` goes through a strategy of its own ([`crate::run::launch`]), since `Learner` keeps optimizer and schedule to
//! itself: their state could not be saved by parameter, and its `optimizer_step` updates a clone of the model while the old weights
//! are still there.

mod learning;
mod loader;
mod rate;

pub use learning::{Learning, StepMetrics};
pub use loader::EpochLoader;
pub use rate::ScheduledRate;
