//! A model case over quantised matrices: the blocks that its floats become, and what is computed with them.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::{DType, Device};
use tg_llava_core::model::TgLlava;
use tg_llava_core::nn::{LossTargets, cross_entropy};
use tg_llava_core::quant::ggml::dequantise;
use tg_llava_core::quant::{Activations, PackedMatrix, QuantMatrix, Scheme};
use tg_llava_core::weights::{Encoding, LoadOptions, Quantization, TensorSource};

use super::inputs::Inputs;
use super::{Case, Meta, generation, to_host};
use crate::parity::ParityOptions;
use crate::parity::decoder::token_by_token;
use crate::parity::golden::{Array, Golden, Group};
use crate::parity::report::Row;
use crate::quantised;

/// As the fixtures state them, in units of the largest value and of the loss.
const LOGITS: f64 = 1e-4;
const LOSS: f64 = 1e-4;

/// In units of the largest value: a GPU may multiply and add in one rounding.
const VALUES: f64 = 1e-6;

/// Schemes that `dir` has recordings of.
fn schemes(dir: &Path) -> Vec<Scheme> {
    Scheme::ALL.into_iter().filter(|scheme| file(dir, *scheme).is_file()).collect()
}

fn file(dir: &Path, scheme: Scheme) -> std::path::PathBuf {
    dir.join(format!("{}.safetensors", scheme.name()))
}

/// Whether `dir` holds recordings of a quantised model; the model is in `../../../models`, under the same name.
pub(in crate::parity) fn is_quantised(dir: &Path) -> bool {
    !dir.join("config.json").exists() && !schemes(dir).is_empty()
}

/// Compares all that a folder holds, where `device` computes with quantised weights.
pub(in crate::parity) fn run(
    dir: &Path,
    device: &Device,
    options: &ParityOptions,
) -> anyhow::Result<Vec<Row>> {
    if !quantised::computes(device, options.dtype) {
        return Ok(Vec::new());
    }
    let name = dir.file_name().with_context(|| format!("{}: a case has a name", dir.display()))?;
    let base = dir.join("../../../models").join(name);
    if !base.is_dir() {
        bail!("{}: the floats of {} are expected there", base.display(), dir.display());
    }
    let text = std::fs::read_to_string(base.join("meta.json"))?;
    let meta: Meta = serde_json::from_str(&text).context("meta.json")?;
    let case =
        Case { dir: &base, device, options, meta, golden: Golden::read(&base.join("golden.safetensors"))? };
    let mut rows = Vec::new();
    for scheme in schemes(dir) {
        let recorded = Recorded { case: &case, scheme, path: &file(dir, scheme) };
        rows.extend(recorded.compare().with_context(|| scheme.name().to_owned())?);
    }
    Ok(rows)
}

/// The recordings of one scheme.
struct Recorded<'a> {
    case: &'a Case<'a>,
    scheme: Scheme,
    path: &'a Path,
}

impl Recorded<'_> {
    fn compare(&self) -> anyhow::Result<Vec<Row>> {
        let golden = Golden::read(self.path)?;
        let (logits, loss) = self.pair(&golden)?;
        let rows = match PackedMatrix::may_lie_on(self.case.device) {
            false => [self.blocks()?, logits, loss, self.decode(&golden)?],
            true => [self.values()?, logits, loss, self.decode_as_the_cpu(&golden)?],
        };
        Ok(rows.into_iter().filter_map(Group::row).collect())
    }

    /// The case's model, its matrices quantised while they were read.
    fn load(&self, activations: Activations) -> anyhow::Result<TgLlava> {
        self.load_on(self.case.device, self.case.options.dtype, activations)
    }

    fn load_on(&self, device: &Device, dtype: DType, activations: Activations) -> anyhow::Result<TgLlava> {
        let quantization = Quantization { encoding: Encoding::Ggml(self.scheme), activations };
        let options = LoadOptions { dtype, quantization: Some(quantization), ..LoadOptions::default() };
        self.case.load_as(device, &options)
    }

    fn group(&self, what: &str, tolerance: f64) -> Group {
        let tolerance = if tolerance > 0.0 { self.case.tolerance(tolerance) } else { tolerance };
        Group::new(format!("{}: {what}", self.scheme.name()), tolerance)
    }

    /// Every byte of every matrix.
    fn blocks(&self) -> anyhow::Result<Group> {
        let model = self.load(Activations::Int8)?;
        let source = TensorSource::from_file(self.path)?;
        let mut group = self.group("blocks", 0.0);
        let mut compared = 0;
        for (site, matrix) in model.llm.matrices() {
            let key = site.key();
            let stored = source.get(&key).with_context(|| key.clone())?.bytes()?;
            let ours = matrix.quantised().and_then(|matrix| matrix.blocks());
            group.equal(&key, &ours.is_some_and(|ours| ours == stored), &true);
            compared += 1;
        }
        let all = source.iter().filter(|(key, _)| key.ends_with(".weight")).count();
        group.equal("matrices", &compared, &all);
        Ok(group)
    }

    /// Every value of every matrix, as the device has it.
    fn values(&self) -> anyhow::Result<Group> {
        let model = self.load(Activations::F32)?;
        let source = TensorSource::from_file(self.path)?;
        let mut group = self.group("values", VALUES);
        for (site, matrix) in model.llm.matrices() {
            let key = site.key();
            let stored = source.get(&key).with_context(|| key.clone())?.bytes()?;
            let ours = matrix.quantised().with_context(|| format!("{key} is not quantised"))?;
            let QuantMatrix::Packed(packed) = ours else { bail!("{key} is not on the device") };
            let [rows, columns] = ours.shape();
            let [mut values, mut expected] = [0; 2].map(|_| vec![f32::NAN; rows * columns]);
            ours.dequantise_rows(0..rows, &mut values);
            dequantise(packed.format(), &stored, columns, &mut expected);
            let array = |values| Array { shape: vec![rows, columns], values };
            group.floats(&key, &array(values), &array(expected));
        }
        let all = source.iter().filter(|(key, _)| key.ends_with(".weight")).count();
        group.equal("matrices", &model.llm.matrices().count(), &all);
        Ok(group)
    }

    /// Whole texts, whose products all have floats.
    fn pair(&self, golden: &Golden) -> anyhow::Result<(Group, Group)> {
        let model = self.load(Activations::F32)?;
        let batch = Inputs::read(self.case, "pair")?.whole_batch(self.case.meta.clip.pad, self.case.device);
        let output = model.forward(&batch)?;
        let [rows, len, width] = output.hidden_states.dims();
        let logits = to_host(model.llm.logits(output.hidden_states.clone().reshape([rows * len, width])))?;
        let expected = golden.float("pair.logits").context("pair.logits")?;
        let mask: Vec<bool> = output.plan.mask.iter().flatten().copied().collect();
        let vocab = model.config().llm.vocab_size;
        let mut close = self.group("scores of whole texts", LOGITS);
        let ours = Array { shape: vec![rows, len, vocab], values: logits.values };
        close.masked("pair.logits", &ours, expected, |index| mask[index / vocab]);
        let targets = LossTargets::new(&output.plan.labels, vocab)?;
        let loss = cross_entropy(model.llm.logits(targets.select(output.hidden_states)), &targets);
        let expected = golden.float("pair.loss").context("pair.loss")?;
        let mut exact = self.group("loss", LOSS);
        exact.scalar("pair.loss", f64::from(to_host(loss)?.values[0]), f64::from(expected.values[0]));
        Ok((close, exact))
    }

    /// Behind a prompt, then token by token: products of one row, whose activations are integers.
    fn decode(&self, golden: &Golden) -> anyhow::Result<Group> {
        let expected = golden.float("gen_a.logits").context("gen_a.logits")?;
        let scores = self.scores(&self.load(Activations::Int8)?, self.case.device, golden)?;
        let mut group = self.group("scores token by token", LOGITS);
        group.floats("gen_a.logits", &Array { shape: expected.shape.clone(), values: scores }, expected);
        Self::nothing_left(&mut group, golden);
        Ok(group)
    }

    /// The same on a GPU, whose activations stay floats; the recorded scores are of integers, so the CPU is asked.
    fn decode_as_the_cpu(&self, golden: &Golden) -> anyhow::Result<Group> {
        golden.skip("gen_a.logits");
        let cpu = Device::flex();
        let expected = self.scores(&self.load_on(&cpu, DType::F32, Activations::F32)?, &cpu, golden)?;
        let scores = self.scores(&self.load(Activations::F32)?, self.case.device, golden)?;
        let mut group = self.group("scores token by token, as on the CPU", LOGITS);
        let array = |values: Vec<f32>| Array { shape: vec![values.len()], values };
        group.floats("gen_a", &array(scores), &array(expected));
        Self::nothing_left(&mut group, golden);
        Ok(group)
    }

    fn scores(&self, model: &TgLlava, device: &Device, golden: &Golden) -> anyhow::Result<Vec<f32>> {
        let inputs = Golden::read(&self.case.dir.join("generation.safetensors"))?;
        let batch = generation::batch(self.case, device, "gen_a", &inputs)?;
        let (_, prompt) = model.embed(&batch)?;
        let forced = golden.int("gen_a.forced_ids").context("gen_a.forced_ids")?;
        token_by_token(&model.llm, prompt, &forced.values)
    }

    fn nothing_left(group: &mut Group, golden: &Golden) {
        group.equal(
            "left out",
            &golden.unseen().iter().filter(|name| !name.ends_with(".weight")).count(),
            &0,
        );
    }
}
