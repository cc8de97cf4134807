//! One optimizer step: a pass with or without recompute, chunked loss, accumulation, clipping, AdamW.

mod head;
mod inputs;
mod mean;
mod parts;
mod scaler;
mod table;
mod tape;
mod trainer;

pub use head::{HeadLoss, head_loss};
pub use inputs::ModelInput;
pub use mean::LossMean;
pub use parts::TrainedParts;
pub use scaler::LossScale;
pub use table::{ParameterInfo, ParameterTable};
pub(crate) use tape::mix;
pub use tape::{Activations, Tape, Var};
pub(crate) use trainer::backward;
pub use trainer::{StepOutcome, Trainer, TrainerOptions, recording, scalar};
