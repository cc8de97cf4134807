//! From a run's configuration to what the trainer is told.

use burn::tensor::DType;

use crate::config::{Component, LossScale as ScaleOption, TrainConfig};
use crate::engine::{Activations, LossScale, TrainerOptions};
use crate::optim::AdamWConfig;
use crate::schedule::LrSchedule;

/// The optimizer steps of a run over `samples` samples on `ranks` devices.
pub fn total_steps(config: &TrainConfig, samples: usize, ranks: usize) -> usize {
    let steps = config.run.dealing(ranks).steps(samples, config.run.epochs);
    config.run.max_steps.unwrap_or(steps)
}

/// How the trainer learns, as `config` has it.
pub fn trainer_options(config: &TrainConfig, total_steps: usize, dtype: DType) -> TrainerOptions {
    let optim = &config.optim;
    let own = |c: Component| optim.lr_of.get(c).map(|lr| (c, lr));
    TrainerOptions {
        parts: config.train,
        activations: match config.run.gradient_checkpointing {
            true => Activations::Recompute,
            false => Activations::Keep,
        },
        loss_chunk: config.run.loss_chunk,
        adamw: AdamWConfig { beta1: optim.beta1, beta2: optim.beta2, epsilon: optim.epsilon },
        lr: optim.lr,
        lr_of: Component::ALL.into_iter().filter_map(own).collect(),
        b_lr_ratio: config.lora.as_ref().map_or(1.0, |lora| lora.b_lr_ratio),
        weight_decay: optim.weight_decay,
        decay_rule: optim.decay_rule,
        max_grad_norm: optim.max_grad_norm,
        schedule: LrSchedule::new(optim.schedule, optim.warmup(), total_steps),
        loss_mean: optim.loss_mean,
        loss_scale: match (dtype, optim.loss_scale) {
            (DType::F16, ScaleOption::Dynamic) => LossScale::dynamic(),
            (DType::F16, ScaleOption::Fixed(scale)) => LossScale::fixed(scale),
            _ => LossScale::ONE,
        },
        seed: config.seed,
    }
}
