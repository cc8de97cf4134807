use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{Module, ParamGroup};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::metric::{Adaptor, LossInput};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use tg_llava_core::model::TgLlava;

use super::ScheduledRate;
use crate::config::Component;
use crate::data::Micro;
use crate::engine::{ModelInput, ParameterTable, TrainerOptions, backward, mix, recording, scalar};
use crate::optim::{AdamW, ParameterGradients};

/// A model with how it learns, as burn-train trains it. It makes one optimizer step of each micro-batch.
#[derive(Module, Debug)]
pub struct Learning {
    model: TgLlava,
    #[module(skip)]
    options: TrainerOptions,
    /// Micro-batches seen by this model and its clones; decides dropout with the seed.
    #[module(skip)]
    seen: Arc<AtomicU64>,
}

/// The numbers of one step or check, for burn-train's metrics.
#[derive(Debug, Clone, Default)]
pub struct StepMetrics {
    /// Mean loss.
    pub loss: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens a second.
    pub tokens_per_s: f64,
    /// Share of the time spent waiting for data, in percent.
    pub data_wait: f64,
    /// Share of right answers, in percent; NaN where none were generated.
    pub exact_match: f64,
}

impl Learning {
    /// `model` on its device's recording twin, frozen as `options` say.
    pub fn new(model: TgLlava, options: TrainerOptions) -> Self {
        Self { model: options.parts.freeze(recording(model)), options, seen: Arc::default() }
    }

    /// The model.
    pub fn into_model(self) -> TgLlava {
        self.model
    }

    /// AdamW on all parameters, with weight decay on those that decay.
    pub fn optimizer(&self) -> ModuleOptimizer {
        let options = &self.options;
        let table = ParameterTable::new(&self.model, options.parts, options.decay_rule);
        let decaying = table.iter().filter(|(_, info)| info.decays).map(|(path, _)| format!("{MODEL}{path}"));
        let adamw = |weight_decay: f64| AdamW::new(options.adamw, weight_decay);
        let all: ModuleOptimizer = adamw(0.0).into();
        all.with_group(ParamGroup::from_paths(decaying.collect()), adamw(options.weight_decay), None)
    }

    /// The course of the learning rate, with the components' own peaks and that of an adapter's second matrices.
    pub fn rate(&self) -> ModuleLrScheduler {
        let TrainerOptions { schedule, lr, lr_of, parts, decay_rule, .. } = &self.options;
        let table = ParameterTable::new(&self.model, *parts, *decay_rule);
        let of = |component: Component, ending: &str| {
            let paths =
                table.iter().filter(|(path, info)| info.component == component && path.ends_with(ending));
            ParamGroup::from_paths(paths.map(|(path, _)| format!("{MODEL}{path}")).collect())
        };
        let all = ModuleLrScheduler::new(ScheduledRate::new(*schedule, *lr));
        let rates = lr_of.iter().fold(all, |rates, (&component, &peak)| {
            rates.with_group(of(component, ""), ScheduledRate::new(*schedule, peak))
        });
        let decoder = lr_of.get(&Component::Llm).unwrap_or(lr);
        match self.options.b_lr_ratio {
            1.0 => rates,
            ratio => rates
                .with_group(of(Component::Llm, ".lora.b"), ScheduledRate::new(*schedule, decoder * ratio)),
        }
    }
}

/// What stands before a parameter's path in the model.
const MODEL: &str = "model.";

impl TrainStep for Learning {
    type Input = Micro;
    type Output = StepMetrics;

    /// Loss and gradients, as the trainer has them.
    ///
    /// # Panics
    /// Where the device fails, or the micro-batch was planned for another model: burn-train takes no error from here.
    fn step(&self, micro: Micro) -> TrainOutput<StepMetrics> {
        let mut gradients = ParameterGradients::new();
        // As the trainer has it for the one micro-batch of a step.
        let seed = mix(mix(self.options.seed, self.seen.fetch_add(1, Ordering::Relaxed)), 0);
        let loss = backward(&self.model, &self.options, &micro, seed, 1.0, &mut gradients);
        let loss = loss.and_then(|loss| Ok(scalar(loss)?));
        let loss = loss.unwrap_or_else(|error| panic!("{error}"));
        let scale = self.options.loss_scale.scale;
        if scale != 1.0 {
            gradients.scale(1.0 / scale);
        }
        TrainOutput {
            grads: gradients.by_id(&self.model),
            item: StepMetrics { loss, ..StepMetrics::default() },
        }
    }

    /// Clips by the global norm and updates; gradients that are not finite change nothing.
    fn optimize(
        mut self,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self {
        let mut gradients = ParameterGradients::of_ids(&self.model, gradients);
        let max_norm = self.options.max_grad_norm;
        let norm = match max_norm > 0.0 {
            true => gradients.clip(max_norm),
            false => gradients.global_norm(),
        };
        let finite = norm.unwrap_or_else(|error| panic!("{error}")).is_finite();
        self.options.loss_scale.update(finite);
        match finite {
            true => {
                let gradients = gradients.by_id(&self.model);
                optimizer.step(rate, self, gradients)
            }
            false => self,
        }
    }
}

impl InferenceStep for Learning {
    type Input = Micro;
    type Output = StepMetrics;

    /// The loss.
    ///
    /// # Panics
    /// As [`TrainStep::step`].
    fn step(&self, micro: Micro) -> StepMetrics {
        let loss = self.model.loss(&micro.batch.on_device(&self.model)).and_then(scalar);
        StepMetrics { loss: loss.unwrap_or_else(|error| panic!("{error}")), ..StepMetrics::default() }
    }
}

impl ItemLazy for StepMetrics {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for StepMetrics {
    fn adapt(&self) -> LossInput {
        LossInput::new(Tensor::from_floats([self.loss as f32], &Device::default()))
    }
}

impl Adaptor<Self> for StepMetrics {
    fn adapt(&self) -> Self {
        self.clone()
    }
}
