//! How a model learns.

use std::collections::BTreeMap;

use super::mean::LossMean;
use super::parts::TrainedParts;
use super::scaler::LossScale;
use super::tape::Activations;
use crate::config::Component;
use crate::optim::{AdamWConfig, DecayRule};
use crate::schedule::{LrSchedule, ScheduleKind, Warmup};

/// How a model learns.
#[derive(Debug, Clone)]
pub struct TrainerOptions {
    /// Which components learn.
    pub parts: TrainedParts,
    /// What is kept for the backward pass.
    pub activations: Activations,
    /// Rows of logits that are alive at a time.
    pub loss_chunk: usize,
    /// Constants of the optimizer.
    pub adamw: AdamWConfig,
    /// Peak learning rate.
    pub lr: f64,
    /// Peak learning rates of single components.
    pub lr_of: BTreeMap<Component, f64>,
    /// Learning rate of an adapter's second matrices over that of its first ones (LoRA+).
    pub b_lr_ratio: f64,
    /// Weight decay of the parameters that decay.
    pub weight_decay: f64,
    /// Which those are.
    pub decay_rule: DecayRule,
    /// Longest gradient, as a global norm; 0 = no clipping.
    pub max_grad_norm: f64,
    /// The learning rate's course.
    pub schedule: LrSchedule,
    /// How the micro-batches' losses become the step's.
    pub loss_mean: LossMean,
    /// Scaling of the loss (f16).
    pub loss_scale: LossScale,
    /// Decides dropout, with the step's number.
    pub seed: u64,
}

impl TrainerOptions {
    /// The reference's constants at a constant rate of `lr`: everything is kept for the backward pass, gradients are clipped at
    /// 1, nothing decays.
    pub fn new(parts: TrainedParts, lr: f64) -> Self {
        Self {
            parts,
            activations: Activations::Keep,
            loss_chunk: 1024,
            adamw: AdamWConfig::default(),
            lr,
            lr_of: BTreeMap::new(),
            b_lr_ratio: 1.0,
            weight_decay: 0.0,
            decay_rule: DecayRule::Reference,
            max_grad_norm: 1.0,
            schedule: LrSchedule::new(ScheduleKind::Constant, Warmup::Steps(0), 1),
            loss_mean: LossMean::default(),
            loss_scale: LossScale::ONE,
            seed: 0,
        }
    }
}
