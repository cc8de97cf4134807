//! Recorded trainings of adapters: repeated, loaded as the folders that they left, and merged.

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::tensor::Device;
use tg_llava_core::config::{GuidePadding, LoraConfig};
use tg_llava_core::model::TgLlava;
use tg_llava_core::nn::{LossTargets, cross_entropy};
use tg_llava_core::quant::bnb::FourBit;
use tg_llava_core::quant::{Activations, QuantMatrix};
use tg_llava_core::weights::{
    Adapter, Component, Encoding, LoadOptions, Quantization, StoredTensor, TensorSource, apply,
    fill_quantised, is_unused_key, load_model, open_sources, reference_tensors,
};

use super::gradients::{recorded_batch, without_dropout};
use super::inputs::Inputs;
use super::training::{self, Recorded};
use super::{Case, set_padding, to_host};
use crate::parity::ParityOptions;
use crate::parity::golden::{Array, Golden, Group};
use crate::parity::report::Row;

/// `tolerances` of the fixtures: logits relative to the largest one, matrices and losses absolute.
const LOGITS: f64 = 1e-4;
const MATRIX: f64 = 1e-6;
const LOSS: f64 = 1e-3;

/// How the decoder of a run over four bits is held.
const NF4: Quantization = Quantization { encoding: Encoding::Nf4, activations: Activations::F32 };

/// Whether a folder holds recorded trainings of adapters: folders with train.json beside a meta.json.
pub(in crate::parity) fn holds(dir: &Path) -> bool {
    dir.join("meta.json").is_file() && runs(dir).is_ok_and(|runs| !runs.is_empty())
}

fn runs(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found: Vec<_> =
        std::fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    found.retain(|path| path.join("train.json").is_file() && path.join("initial").is_dir());
    found.sort();
    Ok(found)
}

/// Compares every run in `dir` over the model case of its name.
pub(in crate::parity) fn run(
    dir: &Path,
    device: &Device,
    options: &ParityOptions,
) -> anyhow::Result<Vec<Row>> {
    let base = case_of(dir)?;
    let case = Case::open(&base, device, options)?;
    let mut rows = Vec::new();
    for run in runs(dir)? {
        let name = run.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let file = run.join("train.json");
        let recorded = training::read(&file, &name, Some(run.clone()));
        let recorded = recorded.with_context(|| format!("{}", file.display()))?;
        if options.wants("training") {
            rows.extend(training::repeat(&case, &recorded)?);
        }
        if options.wants("weights") {
            rows.extend(loaded(&case, &recorded, &run, &name, dir)?);
        }
    }
    Ok(rows)
}

/// The model case that the runs in `dir` start from: `models/NAME` in a folder above.
fn case_of(dir: &Path) -> anyhow::Result<PathBuf> {
    let meta = dir.join("meta.json");
    let text = std::fs::read_to_string(&meta).with_context(|| format!("{}", meta.display()))?;
    let meta_json: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{}", meta.display()))?;
    let name = meta_json["case"].as_str().with_context(|| format!("{}: no case", meta.display()))?;
    let dir = dir.canonicalize()?;
    let places = dir.ancestors().map(|above| above.join("models").join(name));
    places
        .into_iter()
        .find(|place| place.join("golden.safetensors").is_file())
        .with_context(|| format!("{}: models/{name} is in no folder above", meta.display()))
}

/// The model of a run before its first step.
pub(super) fn trainable(case: &Case<'_>, run: &Path, device: &Device) -> anyhow::Result<TgLlava> {
    let (mut model, mut source) = without_dropout(case, device)?;
    let initial = Adapter::open(&run.join("initial"))?;
    model.llm.add_adapter(&initial.config)?;
    source.merge(initial.matrices().clone(), |key| Some(key.to_owned()));
    if let Some(base) = quantised_base(run)? {
        source = over(base, source);
        fill_quantised(&mut model.llm, &mut source, NF4, &mut |_| Ok(()))?;
    }
    Ok(apply(model, &source, case.options.dtype, &|_| false, &mut |_| Ok(()))?.0)
}

/// The decoder's matrices in four bits, where the run was over these.
fn quantised_base(run: &Path) -> anyhow::Result<Option<TensorSource>> {
    let file = run.join("base_nf4.safetensors");
    Ok(if file.is_file() { Some(TensorSource::from_file(&file)?) } else { None })
}

/// `first`, and what it lacks of `rest`.
fn over(mut first: TensorSource, rest: TensorSource) -> TensorSource {
    first.merge(rest, |key| Some(key.to_owned()));
    first
}

/// What the run left, by absolute difference.
pub(super) fn parameters(
    run: &Path,
    recorded: &Recorded,
    model: &TgLlava,
    group: &mut Group,
) -> anyhow::Result<()> {
    let left = Adapter::open(&run.join("final"))?;
    let config = LoraConfig::read(&run.join("initial"))?;
    group.equal("adapter_config.json", &*left.config, &config);
    let ours = reference_tensors(model);
    let noise = |key: &str| recorded.noise_grad_params.contains(key);
    for (key, stored) in left.matrices().iter().chain(left.whole().iter()) {
        if is_unused_key(key) || noise(key) {
            continue;
        }
        let Some(tensor) = ours.get(key) else {
            group.fail(format!("{key}: not in the model"));
            continue;
        };
        let values = tensor.values().context(key.to_owned())?;
        group.absolute(key, &Array { shape: tensor.shape().to_vec(), values }, &values_of(stored)?);
    }
    Ok(())
}

fn values_of(stored: &StoredTensor) -> anyhow::Result<Array<f32>> {
    anyhow::ensure!(stored.dtype_name == "F32", "{}: dtype {}", stored.key, stored.dtype_name);
    let bytes = stored.bytes()?;
    let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(Array { shape: stored.shape.clone(), values })
}

/// The folder that the run left, over its base: merged, as branches, and over the decoder alone.
fn loaded(
    case: &Case<'_>,
    recorded: &Recorded,
    run: &Path,
    name: &str,
    dir: &Path,
) -> anyhow::Result<Vec<Row>> {
    let left = run.join("final");
    let golden = Golden::read(&run.join("merged.safetensors"))?;
    let base = quantised_base(run)?;
    let merged = load(case, &left, base.as_ref())?;
    let group = |what: &str, tolerance| Group::new(format!("{name}: {what}"), tolerance);

    let mut matrices = group("merged matrices", case.tolerance(MATRIX));
    let ours = reference_tensors(&merged);
    for name in golden.names().map(str::to_owned).collect::<Vec<_>>() {
        let Some(key) = name.strip_prefix("merged.") else { continue };
        let (Some(expected), Some(tensor)) = (golden.float(&name), ours.get(key)) else {
            matrices.fail(format!("{key}: not in the model"));
            continue;
        };
        let values = tensor.values().context(key.to_owned())?;
        matrices.absolute(key, &Array { shape: tensor.shape().to_vec(), values }, expected);
    }
    let mut passes = group("logits and loss, merged", case.tolerance(LOGITS));
    pass(case, &merged, &golden, &mut passes)?;
    let mut branches = group("logits and loss, as branches", case.tolerance(LOGITS));
    pass(case, &unmerged(case, &left, base.as_ref())?, &golden, &mut branches)?;
    let mut losses = group("losses of the folder", case.tolerance(LOSS));
    for (scenario, expected) in &recorded.loss_after_training {
        let loss = to_host(merged.loss(&recorded_batch(case, scenario, case.device)?)?)?;
        losses.scalar(scenario, f64::from(loss.values[0]), *expected);
    }
    let mut alone = group("over the decoder alone", 0.0);
    let decoders = [dir.join("base-llm"), case.dir.join("base-llm")];
    for decoder in decoders.into_iter().filter(|decoder| decoder.is_dir()) {
        let other = reference_tensors(&over_decoder(case, (&left, &decoder), base.as_ref())?);
        for (key, tensor) in ours.iter().filter(|(key, _)| !of_tower(key)) {
            alone.equal(
                key,
                &other.get(key).map(|other| other.values()).transpose()?,
                &Some(tensor.values()?),
            );
        }
    }
    let mut quantised = group("NF4 of the decoder", MATRIX);
    if let Some(base) = &base {
        codes(case, base, &mut quantised)?;
    }
    let unseen = golden.unseen();
    let forgotten = (!unseen.is_empty()).then(|| {
        let reason = format!("no comparison for {}", unseen.join(", "));
        Row::exact(format!("{name}: all tensors compared"), unseen.len(), Some(reason))
    });
    let groups = [matrices, passes, branches, losses, alone, quantised].into_iter().filter_map(Group::row);
    Ok(groups.chain(forgotten).collect())
}

/// The folder over the case, or what `base` has of it, its adapter merged.
fn load(case: &Case<'_>, folder: &Path, base: Option<&TensorSource>) -> anyhow::Result<TgLlava> {
    let Some(base) = base else {
        let options = LoadOptions {
            base: Some(case.dir.to_path_buf()),
            dtype: case.options.dtype,
            ..LoadOptions::default()
        };
        let mut model = load_model(folder, case.device, &options, &mut |_| {})?.model;
        model.configure(|config| set_padding(config, GuidePadding::Visible))?;
        return Ok(model);
    };
    let (model, _) = without_dropout(case, case.device)?;
    let source = over(base.clone(), open_sources(folder, model.config(), Some(case.dir))?);
    Ok(apply(model, &source, case.options.dtype, &|_| false, &mut |_| Ok(()))?.0)
}

/// The same over a decoder that has neither bridges nor towers.
fn over_decoder(
    case: &Case<'_>,
    (folder, decoder): (&Path, &Path),
    base: Option<&TensorSource>,
) -> anyhow::Result<TgLlava> {
    let (model, _) = without_dropout(case, case.device)?;
    let source = open_sources(folder, model.config(), Some(decoder))?;
    let source = over(base.cloned().unwrap_or_default(), source);
    Ok(apply(model, &source, case.options.dtype, &of_tower, &mut |_| Ok(()))?.0)
}

fn of_tower(key: &str) -> bool {
    matches!(Component::of_key(key), Some(Component::VisionTower | Component::TextTower))
}

/// The folder over the case, its adapter beside the decoder's matrices, which are in four bits where `base` has them so.
fn unmerged(case: &Case<'_>, folder: &Path, base: Option<&TensorSource>) -> anyhow::Result<TgLlava> {
    let (mut model, start) = without_dropout(case, case.device)?;
    let adapter = Adapter::open(folder)?;
    model.llm.add_adapter(&adapter.config)?;
    let mut source: TensorSource = adapter.matrices().clone();
    source.merge(adapter.whole().clone(), |key| Some(key.to_owned()));
    let mut source = over(source, over(base.cloned().unwrap_or_default(), start));
    if base.is_some() {
        fill_quantised(&mut model.llm, &mut source, NF4, &mut |_| Ok(()))?;
    }
    Ok(apply(model, &source, case.options.dtype, &|_| false, &mut |_| Ok(()))?.0)
}

/// What quantising the case's own matrices gives, against the recorded codes and values.
fn codes(case: &Case<'_>, base: &TensorSource, group: &mut Group) -> anyhow::Result<()> {
    let (mut model, mut source) = without_dropout(case, case.device)?;
    fill_quantised(&mut model.llm, &mut source, NF4, &mut |_| Ok(()))?;
    for (site, matrix) in model.llm.matrices_mut() {
        let key = site.key();
        let Some(golden) = base.get(&key) else { continue };
        let golden = golden.four_bit()?.with_context(|| format!("{key}: not in four bits"))?;
        let Some(QuantMatrix::FourBit(ours)) = matrix.quantised() else {
            group.fail(format!("{key}: not quantised"));
            continue;
        };
        group.equal(&key, &ours.tensor().packed(), &golden.packed());
        // The mean that scales are counted from follows the order of its sum.
        let values = |tensor: &FourBit| {
            let mut values = vec![0.0; tensor.state().num_elements()];
            tensor.dequantise(0, &mut values);
            Array { shape: tensor.state().shape.clone(), values }
        };
        group.absolute(&key, &values(ours.tensor()), &values(&golden));
    }
    Ok(())
}

/// One recorded pass; logits at padding are nobody's.
fn pass(case: &Case<'_>, model: &TgLlava, golden: &Golden, group: &mut Group) -> anyhow::Result<()> {
    for name in golden.names().map(str::to_owned).collect::<Vec<_>>() {
        let Some(scenario) = name.strip_suffix(".logits") else { continue };
        let Some(expected) = golden.float(&name) else { continue };
        let batch = Inputs::read(case, scenario)?.whole_batch(case.meta.clip.pad, case.device);
        let output = model.forward(&batch)?;
        let [rows, len, width] = output.hidden_states.dims();
        let logits = model.llm.logits(output.hidden_states.clone().reshape([rows * len, width]));
        let vocabulary = logits.dims()[1];
        let mask: Vec<bool> = output.plan.mask.iter().flatten().copied().collect();
        let ours = to_host(logits.reshape([rows, len, vocabulary]))?;
        group.masked(&name, &ours, expected, |index| mask[index / vocabulary]);
        if let Some(expected) = golden.float(&format!("{scenario}.loss")) {
            let targets = LossTargets::new(&output.plan.labels, vocabulary)?;
            let loss = cross_entropy(model.llm.logits(targets.select(output.hidden_states)), &targets);
            let loss = f64::from(to_host(loss)?.values[0]);
            group.scalar(&format!("{scenario}.loss"), loss, f64::from(expected.values[0]));
        }
    }
    Ok(())
}
