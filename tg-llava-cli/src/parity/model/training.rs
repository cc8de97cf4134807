//! Recorded training runs: losses, learning rates, gradient norms, and the parameters at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use tg_llava_core::model::{ModelBatch, TgLlava};
use tg_llava_core::weights::reference_tensors;
use tg_llava_train::config::Component;
use tg_llava_train::data::Micro;
use tg_llava_train::engine::{Activations, TrainedParts, Trainer, TrainerOptions};
use tg_llava_train::optim::{AdamWConfig, DecayRule, decays};
use tg_llava_train::parallel::{Collective, Local, Single};
use tg_llava_train::schedule::{LrSchedule, ScheduleKind, Warmup};

use super::adapters;
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
pub(super) struct Recorded {
    /// As the file's.
    #[serde(skip)]
    name: String,
    /// The folder of the run, where it trained an adapter.
    #[serde(skip)]
    pub adapter: Option<PathBuf>,
    batches: Vec<String>,
    config: RunConfig,
    steps: Vec<Step>,
    pub loss_after_training: BTreeMap<String, f64>,
    #[serde(default)]
    param_groups: Option<Vec<ParamGroup>>,
    #[serde(default)]
    pub noise_grad_params: BTreeSet<String>,
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
    /// Of each group.
    #[serde(default)]
    lrs: Vec<f64>,
    grad_norm: f64,
}

#[derive(Deserialize)]
struct ParamGroup {
    weight_decay: f64,
    lr: Option<f64>,
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
            let recorded = read(&file, run, None).with_context(|| format!("{}", file.display()))?;
            rows.extend(repeat(case, &recorded).with_context(|| format!("{}", file.display()))?);
        }
    }
    Ok(rows)
}

/// A record; `adapter` is its folder, where the run trained one.
pub(super) fn read(file: &Path, name: &str, adapter: Option<PathBuf>) -> anyhow::Result<Recorded> {
    let recorded: Recorded = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    Ok(Recorded { name: name.to_owned(), adapter, ..recorded })
}

/// One run, with all activations kept and with recompute: both must give the recorded numbers.
pub(super) fn repeat(case: &Case<'_>, recorded: &Recorded) -> anyhow::Result<Vec<Row>> {
    let name = &recorded.name;
    let mut rows = Vec::new();
    for (mode, activations) in [("", Activations::Keep), (" (recompute)", Activations::Recompute)] {
        rows.extend(match case.options.ranks {
            1 => train(case, &format!("{name}{mode}"), recorded, activations, Box::new(Single))?,
            ranks => {
                let mode = format!("{name}, {ranks} ranks{mode}");
                on_ranks(ranks, |local| train(case, &mode, recorded, activations, local))?
            }
        });
    }
    Ok(rows)
}

/// Runs `body` on so many ranks; the rows of the first one.
fn on_ranks(
    ranks: usize,
    body: impl Fn(Box<dyn Collective>) -> anyhow::Result<Vec<Row>> + Sync,
) -> anyhow::Result<Vec<Row>> {
    let rows = Local::run(ranks, ranks, |local| body(Box::new(local)))?;
    let mut rows = rows.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter();
    Ok(rows.next().unwrap_or_default())
}

/// A rank's part of a run; every rank compares its own numbers and weights.
fn train(
    case: &Case<'_>,
    name: &str,
    recorded: &Recorded,
    activations: Activations,
    collective: Box<dyn Collective>,
) -> anyhow::Result<Vec<Row>> {
    let device = case.device.clone().autodiff();
    let stage = if recorded.config.stage == 1 { Stage::Pretrain } else { Stage::Finetune };
    let model = match &recorded.adapter {
        Some(folder) => adapters::trainable(case, folder, &device)?,
        None => trainable(case, stage, &device)?,
    };
    let mut trainer = Trainer::with_ranks(model, options(&recorded.config, activations), collective);
    let batches: Vec<Micro<ModelBatch>> = recorded
        .batches
        .iter()
        .map(|scenario| Ok(Micro::of(recorded_batch(case, scenario, &device)?, trainer.model().config())?))
        .collect::<anyhow::Result<_>>()?;

    let group = |what: &str, tolerance: f64| Group::new(format!("training {name}: {what}"), tolerance);
    let mut losses = group("losses", case.tolerance(LOSS));
    let mut norms = group("gradient norms", case.tolerance(NORM));
    let mut rates = group("learning rates", LEARNING_RATE);
    for (index, step) in recorded.steps.iter().enumerate() {
        let micro: Vec<_> = step.batches.iter().map(|&batch| batches[batch].clone()).collect();
        let outcome = trainer.step(&micro)?;
        for (&loss, &expected) in outcome.micro_losses.iter().zip(&step.micro_losses) {
            losses.scalar(&format!("step {index}"), loss, expected);
        }
        losses.scalar(&format!("step {index}, mean"), outcome.loss, step.loss);
        norms.scalar(&format!("step {index}"), outcome.grad_norm / step.grad_norm, 1.0);
        rates.scalar(&format!("step {index}"), outcome.lr, step.lr);
        let peaks = recorded.param_groups.iter().flatten().filter_map(|group| group.lr);
        for (&expected, peak) in step.lrs.iter().zip(peaks) {
            rates.scalar(
                &format!("step {index}, of {peak}"),
                trainer.options().schedule.lr(index, peak),
                expected,
            );
        }
    }
    for (scenario, expected) in &recorded.loss_after_training {
        let loss = to_host(trainer.model().loss(&recorded_batch(case, scenario, &device)?)?)?;
        losses.scalar(&format!("{scenario} after training"), f64::from(loss.values[0]), *expected);
    }
    let groups = compare_groups(recorded, &trainer, group("who learns how", 0.0));
    let mut finals = group("final parameters", case.tolerance(PARAMETER));
    match &recorded.adapter {
        Some(folder) => adapters::parameters(folder, recorded, trainer.model(), &mut finals)?,
        None => parameters(case, &recorded.name, trainer.model(), &recorded.noise_grad_params, &mut finals)?,
    }
    Ok([losses, norms, rates, groups, finals].into_iter().filter_map(Group::row).collect())
}

/// Who decays, at which rate, and with an adapter that nobody else learns.
fn compare_groups(recorded: &Recorded, trainer: &Trainer, mut groups: Group) -> Group {
    let family = trainer.model().config().llm.family;
    let options = trainer.options();
    let mut learn = BTreeSet::new();
    for (index, group) in recorded.param_groups.iter().flatten().enumerate() {
        // Groups come in pairs, of which the first one decays.
        let decay =
            if recorded.config.weight_decay > 0.0 { group.weight_decay > 0.0 } else { index % 2 == 0 };
        // Parameters that take no part in the model are in the reference's groups as well.
        for key in group.params.iter().filter(|key| !tg_llava_core::weights::is_unused_key(key)) {
            groups.equal(key, &decays(key, DecayRule::Reference, family), &decay);
            let own = Component::of_key(key).and_then(|component| options.lr_of.get(&component));
            if let Some(lr) = group.lr {
                groups.equal(key, own.unwrap_or(&options.lr), &lr);
            }
            learn.insert(key.clone());
        }
    }
    if recorded.adapter.is_some() {
        let ours = trainer.table().iter().filter(|(_, info)| info.trains).map(|(_, info)| info.key.clone());
        groups.equal("what learns", &ours.collect(), &learn);
    }
    groups
}

/// The recorded run's settings, as the reference's trainer has them.
fn options(config: &RunConfig, activations: Activations) -> TrainerOptions {
    let parts = if config.stage == 1 { TrainedParts::PRETRAIN } else { TrainedParts::FINETUNE };
    TrainerOptions {
        activations,
        adamw: AdamWConfig { beta1: config.betas[0], beta2: config.betas[1], epsilon: config.eps },
        lr_of: config.mm_projector_lr.map(|lr| (Component::Projector, lr)).into_iter().collect(),
        weight_decay: config.weight_decay,
        max_grad_norm: config.max_grad_norm,
        schedule: LrSchedule::new(config.scheduler, Warmup::Steps(config.warmup_steps), config.steps),
        ..TrainerOptions::new(parts, config.peak_lr)
    }
}

/// The parameters at the end, by their absolute difference.
fn parameters(
    case: &Case<'_>,
    name: &str,
    model: &TgLlava,
    noise: &BTreeSet<String>,
    group: &mut Group,
) -> anyhow::Result<()> {
    let golden = Golden::read(&case.dir.join(format!("train_{name}_final.safetensors")))?;
    let ours = reference_tensors(model);
    for key in golden.names().filter(|key| !noise.contains(*key)) {
        let Some(expected) = golden.float(key) else { continue };
        let Some(tensor) = ours.get(key) else {
            group.fail(format!("{key}: not in the model"));
            continue;
        };
        let values = tensor.values().context(key.to_owned())?;
        group.absolute(key, &Array { shape: tensor.shape().to_vec(), values }, expected);
    }
    Ok(())
}
