//! One optimizer step: a pass with or without recompute, chunked loss, accumulation, clipping, AdamW.

mod head;
mod inputs;
mod mean;
mod options;
mod outcome;
mod parts;
mod reduce;
mod report;
mod scaler;
mod table;
mod tape;
mod timed;
mod trainer;
mod units;

pub use head::{HeadLoss, head_loss};
pub use inputs::ModelInput;
pub use mean::LossMean;
pub use options::TrainerOptions;
pub use outcome::{StepOutcome, StepTotals};
pub use parts::TrainedParts;
pub use scaler::LossScale;
pub use table::{ParameterInfo, ParameterTable};
pub(crate) use tape::mix;
pub use tape::{Activations, GradientSink, Tape, Var};
pub use timed::CollectiveTimes;
pub(crate) use trainer::backward;
pub use trainer::{StepError, StepFeed, Trainer, recording, scalar};
pub(crate) use units::Units;
