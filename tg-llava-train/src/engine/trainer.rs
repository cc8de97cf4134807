//! A model that learns: micro-batches in, optimizer steps out.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use tg_llava_core::model::TgLlava;
use tg_llava_core::{Error, Result};

use super::head::head_loss;
use super::inputs::ModelInput;
use super::mean::LossMean;
use super::parts::TrainedParts;
use super::scaler::LossScale;
use super::table::ParameterTable;
use super::tape::{Activations, Tape, mix};
use crate::config::Component;
use crate::data::Micro;
use crate::optim::{AdamWConfig, DecayRule, OptimizerStates, ParameterGradients, ParameterSettings};
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

/// What one optimizer step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Mean of the micro-batches' losses, as [`LossMean`] has it.
    pub loss: f64,
    /// Loss of each micro-batch that was not empty.
    pub micro_losses: Vec<f64>,
    /// Learning rate of the step, without the components' own.
    pub lr: f64,
    /// Global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Whether the weights were updated; not where a loss or a gradient is not finite.
    pub updated: bool,
}

/// A model, its optimizer, and the number of steps made.
#[derive(Debug)]
pub struct Trainer {
    /// Absent while it is updated.
    model: Option<TgLlava>,
    optimizer: OptimizerStates,
    table: ParameterTable,
    options: TrainerOptions,
    step: usize,
}

impl Trainer {
    /// A trainer before its first step. The model is moved to its device's recording twin and frozen as
    /// `options` say.
    pub fn new(model: TgLlava, options: TrainerOptions) -> Self {
        let model = options.parts.freeze(recording(model));
        let table = ParameterTable::new(&model, options.parts, options.decay_rule);
        Self { model: Some(model), optimizer: OptimizerStates::new(options.adamw), table, options, step: 0 }
    }

    /// The model.
    pub fn model(&self) -> &TgLlava {
        self.model.as_ref().expect("a trainer lacks its model only while it updates it")
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &OptimizerStates {
        &self.optimizer
    }

    /// The model's parameters.
    pub fn table(&self) -> &ParameterTable {
        &self.table
    }

    /// How the model learns.
    pub fn options(&self) -> &TrainerOptions {
        &self.options
    }

    /// Optimizer steps made so far.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// The device that batches must be on.
    pub fn device(&self) -> Device {
        self.model().llm.device()
    }

    /// Goes on from what a checkpoint holds.
    pub fn restore(&mut self, optimizer: OptimizerStates, step: usize, loss_scale: LossScale) {
        self.optimizer = optimizer;
        self.step = step;
        self.options.loss_scale = loss_scale;
    }

    /// Adds the gradients of one micro-batch to `sink`, scaled by the loss scale and `weight`; returns its loss, which
    /// is not. `place` is its number within the step.
    ///
    /// # Errors
    /// Where the batch was planned for another model.
    pub fn accumulate(
        &self,
        micro: &Micro<impl ModelInput>,
        place: usize,
        weight: f64,
        sink: &mut ParameterGradients,
    ) -> Result<Tensor<1>> {
        let seed = mix(mix(self.options.seed, self.step as u64), place as u64);
        backward(self.model(), &self.options, micro, seed, weight, sink)
    }

    /// One optimizer step over the mean of `micro_batches`; empty ones keep their place and add nothing. Where a loss
    /// or gradient is not finite the weights stay as they are; the step counts all the same, so that data and
    /// schedule go on.
    ///
    /// # Errors
    /// As [`Self::accumulate`], and where the device could not compute.
    pub fn step(&mut self, micro_batches: &[Micro<impl ModelInput>]) -> Result<StepOutcome> {
        let supervised: Vec<usize> = micro_batches.iter().map(Micro::supervised).collect();
        let weights = self.options.loss_mean.weights(&supervised);
        let mut gradients = ParameterGradients::new();
        let (mut losses, mut of_loss) = (Vec::new(), Vec::new());
        for (place, (micro, weight)) in micro_batches.iter().zip(weights).enumerate() {
            if !micro.is_empty() {
                losses.push(self.accumulate(micro, place, weight, &mut gradients)?);
                of_loss.push(weight);
            }
        }
        let losses = losses.into_iter().map(scalar).collect::<Result<Vec<f64>>>()?;
        self.update(gradients, losses, &of_loss)
    }

    /// The second half of [`Self::step`]: mean, clipping and update.
    pub fn update(
        &mut self,
        mut gradients: ParameterGradients,
        micro_losses: Vec<f64>,
        weights: &[f64],
    ) -> Result<StepOutcome> {
        let options = &self.options;
        let count = micro_losses.len().max(1) as f64;
        let scale = options.loss_scale.scale;
        if count != 1.0 || scale != 1.0 {
            gradients.scale(1.0 / (count * scale));
        }
        let grad_norm = match options.max_grad_norm > 0.0 {
            true => gradients.clip(options.max_grad_norm)?,
            false => gradients.global_norm()?,
        };
        let lr = options.schedule.lr(self.step, options.lr);
        let loss = micro_losses.iter().zip(weights).map(|(loss, weight)| loss * weight).sum::<f64>() / count;
        let updated = grad_norm.is_finite() && loss.is_finite() && !micro_losses.is_empty();
        if updated {
            // Given away, not cloned: each weight's old value goes when its new one is there.
            let model = self.model.take().expect("a trainer lacks its model only in here");
            let (options, table, step) = (&self.options, &self.table, self.step);
            let settings = |path: &str| settings(options, table, step, path);
            self.model = Some(self.optimizer.step(model, &gradients, &settings));
        }
        if !micro_losses.is_empty() {
            self.options.loss_scale.update(updated);
        }
        self.step += 1;
        Ok(StepOutcome { loss, micro_losses, lr, grad_norm, updated })
    }
}

/// Adds the gradients of one micro-batch to `sink`, scaled by the loss scale and `weight`; returns its loss, which is not. `seed`
/// decides dropout.
///
/// # Errors
/// Where the batch was planned for another model.
pub(crate) fn backward(
    model: &TgLlava,
    options: &TrainerOptions,
    micro: &Micro<impl ModelInput>,
    seed: u64,
    weight: f64,
    sink: &mut ParameterGradients,
) -> Result<Tensor<1>> {
    let batch = micro.batch.on_device(model);
    let mut tape = Tape::new(model, options.parts, options.activations, seed);
    let hidden = model.walk_decoder(&mut tape, &batch, &micro.plan)?;
    let scale = options.loss_scale.scale * weight;
    let head = head_loss(model, tape.value(&hidden), &micro.targets, options.loss_chunk, scale, sink);
    tape.backward(hidden, head.gradient, sink);
    Ok(head.loss)
}

/// How the parameter at `path` is updated in step `step`.
fn settings(options: &TrainerOptions, table: &ParameterTable, step: usize, path: &str) -> ParameterSettings {
    let info = table.get(path);
    let own = info.and_then(|info| options.lr_of.get(&info.component));
    let decays = info.is_some_and(|info| info.decays);
    ParameterSettings {
        lr: options.schedule.lr(step, own.copied().unwrap_or(options.lr)),
        weight_decay: if decays { options.weight_decay } else { 0.0 },
    }
}

/// The value of a tensor of one element.
///
/// # Errors
/// [`Error::Request`] where the device could not compute it.
pub fn scalar(tensor: Tensor<1>) -> Result<f64> {
    let values = tensor.try_into_vec_as::<f32>();
    let values = values.map_err(|e| Error::Request(format!("the device could not compute the loss: {e}")))?;
    Ok(values.first().copied().map_or(f64::NAN, f64::from))
}

/// The model on a device that records gradients.
pub fn recording(model: TgLlava) -> TgLlava {
    use burn::module::Module;
    match model.llm.device().is_autodiff() {
        true => model,
        false => model.train(),
    }
}
