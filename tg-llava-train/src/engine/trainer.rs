//! A model that learns: micro-batches in, optimizer steps out.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use tg_llava_core::model::TgLlava;
use tg_llava_core::{Error, Result};

use super::forward::record;
use super::head::head_loss;
use super::inputs::ModelInput;
use super::mean::LossMean;
use super::parts::TrainedParts;
use super::scaler::LossScale;
use super::table::ParameterTable;
use super::tape::{Activations, Tape, mix};
use crate::config::Component;
use crate::data::Micro;
use crate::optim::{AdamW, AdamWConfig, DecayRule, ParameterGradients, ParameterSettings};
use crate::schedule::LrSchedule;

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

/// What one optimizer step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Mean of the micro-batches' losses, as [`LossMean`] has it; NaN where all were empty.
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
    model: TgLlava,
    optimizer: AdamW,
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
        Self { model, optimizer: AdamW::new(options.adamw), table, options, step: 0 }
    }

    /// The model.
    pub fn model(&self) -> &TgLlava {
        &self.model
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &AdamW {
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
        self.model.llm.device()
    }

    /// Goes on from what a checkpoint holds.
    pub fn restore(&mut self, optimizer: AdamW, step: usize, loss_scale: LossScale) {
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
        let batch = micro.batch.on_device(&self.model);
        let mut tape = Tape::new(&self.model, self.options.activations, seed);
        let recorded = record(&mut tape, &self.model, self.options.parts, &batch)?;
        let hidden = tape.value(recorded.hidden_states);
        let scale = self.options.loss_scale.scale * weight;
        let head = head_loss(&self.model, hidden, &micro.targets, self.options.loss_chunk, scale, sink);
        tape.backward(recorded.hidden_states, head.gradient, sink);
        Ok(head.loss)
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
    fn update(
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
        let loss = match micro_losses.is_empty() {
            true => f64::NAN,
            false => {
                micro_losses.iter().zip(weights).map(|(loss, weight)| loss * weight).sum::<f64>() / count
            }
        };
        let updated = grad_norm.is_finite() && loss.is_finite() && !micro_losses.is_empty();
        if updated {
            let mut optimizer = std::mem::replace(&mut self.optimizer, AdamW::new(self.options.adamw));
            let settings = |path: &str| self.settings(path);
            let model = optimizer.step(self.model.clone(), &gradients, &settings);
            (self.model, self.optimizer) = (model, optimizer);
        }
        if !micro_losses.is_empty() {
            self.options.loss_scale.update(updated);
        }
        self.step += 1;
        Ok(StepOutcome { loss, micro_losses, lr, grad_norm, updated })
    }

    /// How the parameter at `path` is updated in this step.
    fn settings(&self, path: &str) -> ParameterSettings {
        let options = &self.options;
        let info = self.table.get(path);
        let own = info.and_then(|info| options.lr_of.get(&info.component));
        let decays = info.is_some_and(|info| info.decays);
        ParameterSettings {
            lr: options.schedule.lr(self.step, own.copied().unwrap_or(options.lr)),
            weight_decay: if decays { options.weight_decay } else { 0.0 },
        }
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
