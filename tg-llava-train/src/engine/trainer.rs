//! A model that learns: micro-batches in, optimizer steps out.

use std::collections::BTreeSet;
use std::fmt::Display;

use burn::tensor::{Device, Tensor};
use tg_llava_core::Error;
use tg_llava_core::model::TgLlava;

use super::StepOutcome;
use super::head::head_loss;
use super::inputs::ModelInput;
use super::options::TrainerOptions;
use super::reduce::{Reducer, Sums};
use super::report::{Reports, StepReport};
use super::scaler::LossScale;
use super::table::ParameterTable;
use super::tape::{GradientSink, Tape, mix};
use super::timed::Timed;
use super::units::Units;
use crate::data::Micro;
use crate::optim::{OptimizerStates, ParameterGradients, ParameterSettings, Update, read, squares};
use crate::parallel::{Collective, ParallelError, ROW, Single, World};

type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The model could not compute.
    #[error(transparent)]
    Model(#[from] Error),
    /// The ranks cannot go on together.
    #[error(transparent)]
    Parallel(#[from] ParallelError),
}

/// Gives an optimizer step its micro-batches, one after the other.
pub trait StepFeed {
    /// Where the samples are.
    type Input: ModelInput;
    /// What may be wrong with a micro-batch.
    type Error: Display + From<StepError>;

    /// Micro-batch `place` of the step. A rank asks for its own alone, in order; `None` and empty ones keep their place and add nothing.
    ///
    /// # Errors
    /// Where it cannot be had. All ranks end the step then, each with an error.
    fn micro(&mut self, place: usize) -> std::result::Result<Option<&Micro<Self::Input>>, Self::Error>;

    /// Whether the run shall end after this step.
    fn wants_stop(&mut self) -> bool {
        false
    }
}

/// Micro-batches that are all there.
struct Recorded<'a, B>(&'a [Micro<B>]);

impl<B: ModelInput> StepFeed for Recorded<'_, B> {
    type Input = B;
    type Error = StepError;

    fn micro(&mut self, place: usize) -> std::result::Result<Option<&Micro<B>>, StepError> {
        Ok(self.0.get(place))
    }
}

/// A model, its optimizer, and the number of steps made: one rank of those that train together.
pub struct Trainer {
    /// Absent while it is updated.
    model: Option<TgLlava>,
    optimizer: OptimizerStates,
    table: ParameterTable,
    units: Units,
    options: TrainerOptions,
    step: usize,
    collective: Timed,
}

impl Trainer {
    /// A trainer alone, before its first step. The model is moved to its device's recording twin and frozen as
    /// `options` say.
    pub fn new(model: TgLlava, options: TrainerOptions) -> Self {
        Self::with_ranks(model, options, Box::new(Single))
    }

    /// A rank of those that `collective` joins; all of them have the same model and options.
    pub fn with_ranks(model: TgLlava, options: TrainerOptions, collective: Box<dyn Collective>) -> Self {
        let model = options.parts.freeze(recording(model));
        let table = ParameterTable::new(&model, options.parts, options.decay_rule);
        let units = Units::new(&table, model.llm.dtype());
        let optimizer = OptimizerStates::new(options.adamw);
        let collective = Timed::new(collective);
        Self { model: Some(model), optimizer, table, units, options, step: 0, collective }
    }

    /// The model.
    pub fn model(&self) -> &TgLlava {
        self.model.as_ref().expect("a trainer lacks its model only while it updates it")
    }

    /// The optimizer: this rank's slices.
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

    /// Those that train together.
    pub fn collective(&mut self) -> &mut dyn Collective {
        &mut self.collective
    }

    /// Which of them this is.
    pub fn world(&self) -> World {
        self.collective.world()
    }

    /// Goes on from what a checkpoint holds.
    pub fn restore(&mut self, optimizer: OptimizerStates, step: usize, loss_scale: LossScale) {
        self.optimizer = optimizer;
        self.step = step;
        self.options.loss_scale = loss_scale;
    }

    /// The gradients of one micro-batch alone, scaled by the loss scale. `place` is its number within the step.
    ///
    /// # Errors
    /// Where the batch was planned for another model.
    pub fn gradients(
        &self,
        micro: &Micro<impl ModelInput>,
        place: usize,
    ) -> Result<ParameterGradients, StepError> {
        let mut gradients = ParameterGradients::new();
        backward(self.model(), &self.options, micro, self.seed(place), 1.0, &mut gradients)?;
        Ok(gradients)
    }

    fn seed(&self, place: usize) -> u64 {
        mix(mix(self.options.seed, self.step as u64), place as u64)
    }

    /// One optimizer step over the mean of `micro_batches`, of which each rank takes its own; empty ones keep their place and add
    /// nothing.
    ///
    /// # Errors
    /// As [`Self::step_over`].
    pub fn step(&mut self, micro_batches: &[Micro<impl ModelInput>]) -> Result<StepOutcome, StepError> {
        self.step_over(micro_batches.len(), &mut Recorded(micro_batches))
    }

    /// One optimizer step over the mean of `micro_batches`, as `feed` gives them. Where a loss or gradient is not finite the weights
    /// stay as they are; the step counts all the same, so that data and schedule go on.
    ///
    /// Micro-batch `m` is that of rank `m % ranks`, and gradients are added in the order of `m`: the step is the same for any number
    /// of ranks.
    ///
    /// # Errors
    /// Those of `feed`, here or at another rank; where a batch was planned for another model, the device could not compute, or the
    /// ranks have lost one another.
    pub fn step_over<F: StepFeed>(
        &mut self,
        micro_batches: usize,
        feed: &mut F,
    ) -> std::result::Result<StepOutcome, F::Error> {
        let mut sums = Sums::default();
        let mut report = StepReport::default();
        let mut losses = Vec::new();
        let mut trouble: Option<F::Error> = None;
        let world = self.world();
        let device = self.device().inner();
        for round in 0..micro_batches.div_ceil(world.size()) {
            let place = round * world.size() + world.rank();
            let seed = self.seed(place);
            let model = self.model.as_ref().expect("a trainer lacks its model only while it updates it");
            let mut reducer = Reducer::new(&self.units, &device, &mut self.collective, &mut sums);
            let wanted = place < micro_batches && trouble.is_none();
            match if wanted { feed.micro(place) } else { Ok(None) } {
                Ok(Some(micro)) => {
                    report.fed(micro);
                    if !micro.is_empty() {
                        let weight = self.options.loss_mean.weight(micro.supervised());
                        match backward(model, &self.options, micro, seed, weight, &mut reducer) {
                            Ok(loss) => losses.push((place, micro.supervised(), loss)),
                            Err(StepError::Parallel(error)) => return Err(StepError::from(error).into()),
                            Err(error) => trouble = Some(error.into()),
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => trouble = Some(error),
            }
            reducer.finish().map_err(StepError::from)?;
        }
        for (place, supervised, loss) in losses {
            match scalar(loss) {
                Ok(loss) => report.losses.push((place, supervised, loss.to_bits())),
                Err(error) => trouble = Some(StepError::from(error).into()),
            }
        }
        report.trouble = trouble.as_ref().map(ToString::to_string);
        report.wants_stop = feed.wants_stop();
        let reports = self.exchange(report, &mut sums)?;
        if let Some(error) = trouble {
            return Err(error);
        }
        if let Some((rank, message)) = reports.trouble() {
            return Err(StepError::from(ParallelError::Other { rank, message }).into());
        }
        Ok(self.update(sums, reports)?)
    }

    /// Tells the other ranks of the step, and hears of theirs.
    fn exchange(&mut self, mut report: StepReport, sums: &mut Sums) -> Result<Reports, StepError> {
        let world = self.world();
        let (paths, slices): (Vec<_>, Vec<_>) = std::mem::take(&mut sums.slices).into_iter().unzip();
        sums.slices = paths.into_iter().zip(self.collective.sum_nodes(slices)?).collect();
        report.seen = self.units.all().map(|member| sums.seen.contains(&member.path)).collect();
        report.times = self.collective.take_times();
        // Every node holds all slices, so the first one's are enough. Where the device fails, all ranks must hear of it.
        let own = sums.slices.values().take(if world.node() == 0 { usize::MAX } else { 0 });
        let squares = match read(own.map(squares).collect()) {
            Ok(squares) => squares,
            Err(error) => {
                report.trouble.get_or_insert(error.to_string());
                Vec::new()
            }
        };
        let bytes = self.collective.exchange(&report.encode(&squares))?;
        Ok(Reports::decode(&bytes, world)?)
    }

    /// Mean, clipping and update.
    fn update(&mut self, mut sums: Sums, reports: Reports) -> Result<StepOutcome, StepError> {
        let options = &self.options;
        let norm = reports.norm(sums.slices.values().map(|slice| slice.dims()[0].div_ceil(ROW)));
        let seen = reports.seen();
        let seen: BTreeSet<&str> = self
            .units
            .all()
            .zip(seen)
            .filter(|(_, seen)| *seen)
            .map(|(member, _)| member.path.as_str())
            .collect();
        sums.slices.retain(|path, _| seen.contains(path.as_str()));
        let losses = reports.losses();
        let weight = |supervised: usize| options.loss_mean.weight(supervised);
        let weights: f64 = losses.iter().map(|(supervised, _)| weight(*supervised)).sum();
        let loss = losses.iter().map(|(supervised, loss)| weight(*supervised) * loss).sum::<f64>() / weights;
        let micro_losses: Vec<f64> = losses.into_iter().map(|(_, loss)| loss).collect();
        let mean = 1.0 / (weights * options.loss_scale.scale);
        let grad_norm = if micro_losses.is_empty() { 0.0 } else { norm * mean };
        let clip = match options.max_grad_norm > 0.0 {
            true => (options.max_grad_norm / (grad_norm + 1e-6)).min(1.0),
            false => 1.0,
        };
        let lr = options.schedule.lr(self.step, options.lr);
        let updated = grad_norm.is_finite() && loss.is_finite() && !micro_losses.is_empty();
        if updated {
            // Given away, not cloned: each weight's old value goes when its new one is there.
            let model = self.model.take().expect("a trainer lacks its model only in here");
            let (table, step) = (&self.table, self.step);
            let settings = |path: &str| settings(options, table, step, path);
            let update = Update {
                gradients: sums.slices,
                factor: mean * clip,
                settings: &settings,
                collective: &mut self.collective,
            };
            let (model, result) = self.optimizer.step(model, update);
            self.model = Some(model);
            result?;
        }
        if !micro_losses.is_empty() {
            self.options.loss_scale.update(updated);
        }
        self.step += 1;
        let Reports { work, .. } = reports;
        Ok(StepOutcome { loss, micro_losses, lr, grad_norm, updated, work })
    }
}

/// Adds the gradients of one micro-batch to `sink`, scaled by the loss scale and `weight`; returns its loss, which is not. `seed`
/// decides dropout.
///
/// # Errors
/// Where the batch was planned for another model, and those of `sink`.
pub(crate) fn backward(
    model: &TgLlava,
    options: &TrainerOptions,
    micro: &Micro<impl ModelInput>,
    seed: u64,
    weight: f64,
    sink: &mut impl GradientSink,
) -> Result<Tensor<1>, StepError> {
    let batch = micro.batch.on_device(model);
    let mut tape = Tape::new(model, options.parts, options.activations, seed);
    let hidden = model.walk_decoder(&mut tape, &batch, &micro.plan)?;
    let scale = options.loss_scale.scale * weight;
    let head = head_loss(model, tape.value(&hidden), &micro.targets, options.loss_chunk, scale, sink);
    tape.backward(hidden, head.gradient, sink)?;
    Ok(head.loss)
}

/// How the parameter at `path` is updated in step `step`.
fn settings(options: &TrainerOptions, table: &ParameterTable, step: usize, path: &str) -> ParameterSettings {
    let info = table.get(path);
    let own = info.and_then(|info| options.lr_of.get(&info.component));
    let decays = info.is_some_and(|info| info.decays);
    let ratio = if path.ends_with(".lora.b") { options.b_lr_ratio } else { 1.0 };
    ParameterSettings {
        lr: options.schedule.lr(step, own.copied().unwrap_or(options.lr) * ratio),
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
