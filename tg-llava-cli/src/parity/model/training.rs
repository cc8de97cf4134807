//! Recorded training runs: losses, learning rates, gradient norms, and the parameters at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use tg_llava_core::config::ProjectorConfig;
use tg_llava_core::model::TgLlava;
use tg_llava_core::weights::{reference_key, reference_tensors};
use tg_llava_train::optim::{AdamW, AdamWConfig, DecayRule, ParameterGradients, ParameterSettings, decays};
use tg_llava_train::schedule::{LrSchedule, ScheduleKind, Warmup};

use super::gradients::{Stage, recorded_batch, trainable};
use super::{Case, to_host};
use crate::parity::golden::{Array, Golden, Group};
use crate::parity::report::Row;

/// `suggested` tolerances of the fixtures; norms relative to the recorded ones.
const LOSS: f64 = 1e-3;
const PARAMETER: f64 = 2e-4;
const NORM: f64 = 1e-3;
const LEARNING_RATE: f64 = 1e-12;

#[derive(Deserialize)]
struct Recorded {
    batches: Vec<String>,
    config: RunConfig,
    steps: Vec<Step>,
    loss_after_training: BTreeMap<String, f64>,
    #[serde(default)]
    param_groups: Option<Vec<ParamGroup>>,
    #[serde(default)]
    noise_grad_params: BTreeSet<String>,
}

#[derive(Deserialize)]
struct RunConfig {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    scheduler: ScheduleKind,
    steps: usize,
    peak_lr: f64,
    mm_projector_lr: Option<f64>,
    warmup_steps: usize,
    stage: u8,
}

#[derive(Deserialize)]
struct Step {
    batches: Vec<usize>,
    loss: f64,
    micro_losses: Vec<f64>,
    lr: f64,
    grad_norm: f64,
}

#[derive(Deserialize)]
struct ParamGroup {
    weight_decay: f64,
    params: Vec<String>,
}

/// Repeats every run that the folder records.
pub(super) fn run(case: &Case<'_>) -> anyhow::Result<Vec<Row>> {
    let mut files: Vec<_> =
        std::fs::read_dir(case.dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut rows = Vec::new();
    for file in files {
        let name = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let json = file.extension().is_some_and(|e| e == "json");
        if let Some(run) = name.strip_prefix("train_").filter(|_| json) {
            rows.extend(repeat(case, run, &file).with_context(|| format!("{}", file.display()))?);
        }
    }
    Ok(rows)
}

fn repeat(case: &Case<'_>, name: &str, file: &Path) -> anyhow::Result<Vec<Row>> {
    let recorded: Recorded = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let config = &recorded.config;
    let device = case.device.clone().autodiff();
    let stage = if config.stage == 1 { Stage::Pretrain } else { Stage::Finetune };
    let mut model = trainable(case, stage, &device)?;
    let names = Names::of(&model);
    let mut optimizer =
        AdamW::new(AdamWConfig { beta1: config.betas[0], beta2: config.betas[1], epsilon: config.eps });
    let schedule = LrSchedule::new(config.scheduler, Warmup::Steps(config.warmup_steps), config.steps);

    let mut losses = Group::new(format!("training {name}: losses"), case.tolerance(LOSS));
    let mut norms = Group::new(format!("training {name}: gradient norms"), case.tolerance(NORM));
    let mut rates = Group::new(format!("training {name}: learning rates"), LEARNING_RATE);
    for (index, step) in recorded.steps.iter().enumerate() {
        let mut gradients = ParameterGradients::new();
        let mut mean = 0.0;
        for (&batch, &expected) in step.batches.iter().zip(&step.micro_losses) {
            let loss = model.loss(&recorded_batch(case, &recorded.batches[batch], &device)?)?;
            let value = f64::from(to_host(loss.clone())?.values[0]);
            losses.scalar(&format!("step {index}"), value, expected);
            mean += value / step.batches.len() as f64;
            gradients.add(&model, &loss.backward());
        }
        losses.scalar(&format!("step {index}, mean"), mean, step.loss);
        gradients.scale(1.0 / step.batches.len() as f64);
        let norm = gradients.clip(config.max_grad_norm)?;
        norms.scalar(&format!("step {index}"), norm / step.grad_norm, 1.0);
        let lr = schedule.lr(index, config.peak_lr);
        rates.scalar(&format!("step {index}"), lr, step.lr);
        let settings = |path: &str| {
            let key = names.key(path);
            let peak = match config.mm_projector_lr {
                Some(lr) if key.contains("mm_projector") => lr,
                _ => config.peak_lr,
            };
            let decays = decays(&key, DecayRule::Reference, names.family);
            let weight_decay = if decays { config.weight_decay } else { 0.0 };
            ParameterSettings { lr: schedule.lr(index, peak), weight_decay }
        };
        model = optimizer.step(model, &gradients, &settings);
    }
    for (scenario, expected) in &recorded.loss_after_training {
        let loss = to_host(model.loss(&recorded_batch(case, scenario, &device)?)?)?;
        losses.scalar(&format!("{scenario} after training"), f64::from(loss.values[0]), *expected);
    }
    let mut groups = Group::new(format!("training {name}: who decays"), 0.0);
    for group in recorded.param_groups.iter().flatten() {
        // Parameters that take no part in the model are in the reference's groups as well.
        for key in group.params.iter().filter(|key| !tg_llava_core::weights::is_unused_key(key)) {
            groups.equal(key, &decays(key, DecayRule::Reference, names.family), &(group.weight_decay > 0.0));
        }
    }
    let parameters = parameters(case, name, &model, &recorded.noise_grad_params)?;
    Ok([losses, norms, rates, groups, parameters].into_iter().filter_map(Group::row).collect())
}

/// The parameters at the end, by their absolute difference.
fn parameters(
    case: &Case<'_>,
    name: &str,
    model: &TgLlava,
    noise: &BTreeSet<String>,
) -> anyhow::Result<Group> {
    let golden = Golden::read(&case.dir.join(format!("train_{name}_final.safetensors")))?;
    let ours = reference_tensors(model);
    let mut group = Group::new(format!("training {name}: final parameters"), case.tolerance(PARAMETER));
    for key in golden.names().filter(|key| !noise.contains(*key)) {
        let Some(expected) = golden.float(key) else { continue };
        let Some(tensor) = ours.get(key) else {
            group.fail(format!("{key}: not in the model"));
            continue;
        };
        let values = tensor.values().context(key.to_owned())?;
        group.absolute(key, &Array { shape: tensor.shape().to_vec(), values }, expected);
    }
    Ok(group)
}

/// The reference's names of our parameters.
struct Names {
    plain_linear: bool,
    family: tg_llava_core::config::LlmFamily,
}

impl Names {
    fn of(model: &TgLlava) -> Self {
        let config = model.config();
        let projector = config.multimodal.as_ref().map(|mm| mm.projector);
        Self { plain_linear: projector == Some(ProjectorConfig::Linear), family: config.llm.family }
    }

    fn key(&self, path: &str) -> String {
        reference_key(path, self.plain_linear)
    }
}
