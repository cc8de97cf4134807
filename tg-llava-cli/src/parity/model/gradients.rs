//! Gradients of one batch in both stages.

use std::collections::BTreeMap;

use anyhow::Context;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use tg_llava_core::config::{GuidePadding, read_model_config};
use tg_llava_core::model::{ModelBatch, TgLlava};
use tg_llava_core::weights::{
    ParameterPath, ParameterVisitor, TensorSource, apply, open_sources, reference_key, visit_parameters,
};
use tg_llava_train::data::Micro;
use tg_llava_train::engine::{Activations, TrainedParts, Trainer, TrainerOptions};
use tg_llava_train::optim::ParameterGradients;

use super::inputs::Inputs;
use super::{Case, set_padding, to_host};
use crate::parity::golden::{Array, Golden, Group};
use crate::parity::report::Row;

/// `suggested.grad_abs_over_tensor_max` of the fixtures.
const GRADIENT: f64 = 2e-4;
/// Where the true gradient is zero, what is left is rounding; it must stay this far below the rest.
const NOISE: f64 = 1e-5;

/// Which parts learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Projector and bridges; gradients flow through the frozen decoder.
    Pretrain,
    /// Those and the decoder.
    Finetune,
}

/// Compares the gradients of every stage that was recorded.
pub(super) fn run(case: &Case<'_>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, stage) in [("stage1", Stage::Pretrain), ("stage2", Stage::Finetune)] {
        let path = case.dir.join(format!("grads_{name}.safetensors"));
        if let (true, Some(meta)) = (path.is_file(), case.meta.grads.get(name)) {
            let meta = serde_json::from_value(meta.clone()).context("meta.json: grads")?;
            rows.extend(compare(case, name, stage, &meta, &Golden::read(&path)?)?);
        }
    }
    Ok(rows)
}

/// The trainer's own gradients, with all activations kept and with recompute.
fn compare(
    case: &Case<'_>,
    name: &str,
    stage: Stage,
    meta: &super::GradMeta,
    golden: &Golden,
) -> anyhow::Result<Vec<Row>> {
    let device = case.device.clone().autodiff();
    let parts = if stage == Stage::Pretrain { TrainedParts::PRETRAIN } else { TrainedParts::FINETUNE };
    let batch = recorded_batch(case, &meta.scenario, &device)?;
    let mut rows = Vec::new();
    for (mode, activations) in [("", Activations::Keep), (" (recompute)", Activations::Recompute)] {
        let options = TrainerOptions { activations, ..TrainerOptions::new(parts, 0.0) };
        let trainer = Trainer::new(trainable(case, stage, &device)?, options);
        let micro = Micro::of(batch.clone(), trainer.model().config())?;
        let gradients = trainer.gradients(&micro, 0)?;
        rows.extend(compare_gradients(case, &format!("{name}{mode}"), &trainer, &gradients, meta, golden)?);
    }
    Ok(rows)
}

fn compare_gradients(
    case: &Case<'_>,
    name: &str,
    trainer: &Trainer,
    gradients: &ParameterGradients,
    meta: &super::GradMeta,
    golden: &Golden,
) -> anyhow::Result<Vec<Row>> {
    let ours = collect(trainer.model(), gradients)?;
    let mut group = Group::new(format!("{name}: gradients"), case.tolerance(GRADIENT));
    let mut noise = Group::new(format!("{name}: gradients that are zero"), case.tolerance(NOISE));
    for key in golden.names().map(str::to_owned).collect::<Vec<_>>() {
        let Some(expected) = golden.float(&key) else { continue };
        match ours.get(&key) {
            None => group.fail(format!("{key}: no gradient")),
            Some(gradient) if meta.zero_or_noise_grads.contains(&key) => {
                let largest = gradient.values.iter().map(|v| v.abs()).fold(0.0, f32::max);
                noise.scalar(&key, f64::from(largest), 0.0);
            }
            Some(gradient) => group.floats(&key, gradient, expected),
        }
    }
    for key in ours.keys().filter(|key| golden.float(key).is_none()) {
        group.fail(format!("{key}: has a gradient here, but none in the reference"));
    }
    let mut norm = Group::new(format!("{name}: global norm"), case.tolerance(1e-4));
    if let Some(expected) = meta.global_norm {
        norm.scalar("global norm over the golden one", gradients.global_norm()? / expected, 1.0);
    }
    Ok([group, noise, norm].into_iter().filter_map(Group::row).collect())
}

/// A scenario as the reference trains on it: it pads all guides to one length and lets the padding be seen.
pub(super) fn recorded_batch(
    case: &Case<'_>,
    scenario: &str,
    device: &burn::tensor::Device,
) -> anyhow::Result<ModelBatch> {
    let inputs = Inputs::read(case, scenario)?;
    let keep: Vec<usize> = (0..inputs.rows.len()).collect();
    let mut batch = inputs.batch(&keep, case.meta.clip.eos, device);
    batch.guides.ids = inputs.guides.clone();
    Ok(batch)
}

/// The case's model without dropout, and the weights that it shall have.
pub(super) fn without_dropout(
    case: &Case<'_>,
    device: &burn::tensor::Device,
) -> anyhow::Result<(TgLlava, TensorSource)> {
    let mut config = read_model_config(case.dir)?;
    let source = open_sources(case.dir, &config, None)?;
    set_padding(&mut config, GuidePadding::Visible);
    if let Some(guide) = config.multimodal.as_mut().and_then(|mm| mm.guide.as_mut()) {
        guide.dropout = 0.0;
    }
    Ok((config.init(device)?, source))
}

/// The case's model without dropout, the stage's frozen parts frozen.
pub(super) fn trainable(
    case: &Case<'_>,
    stage: Stage,
    device: &burn::tensor::Device,
) -> anyhow::Result<TgLlava> {
    let (model, source) = without_dropout(case, device)?;
    let (mut model, _) = apply(model, &source, case.options.dtype, &|_| false, &mut |_| Ok(()))?;
    model.vision_tower = model.vision_tower.map(Module::no_grad);
    model.text_tower = model.text_tower.map(Module::no_grad);
    if stage == Stage::Pretrain {
        model.llm = model.llm.no_grad();
    }
    Ok(model)
}

/// Gradients by the reference's keys and in its shapes.
fn collect(model: &TgLlava, gradients: &ParameterGradients) -> anyhow::Result<BTreeMap<String, Array<f32>>> {
    let plain_linear = model.config().has_plain_linear_projector();
    let mut collector = Collector { gradients, plain_linear, found: BTreeMap::new(), error: None };
    visit_parameters(model, &mut collector);
    match collector.error {
        Some(error) => Err(error),
        None => Ok(collector.found),
    }
}

struct Collector<'a> {
    gradients: &'a ParameterGradients,
    plain_linear: bool,
    found: BTreeMap<String, Array<f32>>,
    error: Option<anyhow::Error>,
}

impl ParameterVisitor for Collector<'_> {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        let dotted = path.dotted();
        let Some(gradient) = self.gradients.get(&dotted) else { return };
        let gradient: Tensor<D> = gradient.reshape(param.lazy_shape());
        let gradient = if path.is_linear_weight() { gradient.transpose() } else { gradient };
        match to_host(gradient) {
            Ok(array) => {
                self.found.insert(reference_key(&dotted, self.plain_linear), array);
            }
            Err(error) => self.error = Some(error),
        }
    }
}
