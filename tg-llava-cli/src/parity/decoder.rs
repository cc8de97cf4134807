//! A plain decoder with recorded scores (`golden.safetensors`) or greedy answers (`greedy.json`). Its weights may be quantised, and
//! in a GGUF file.

use std::path::Path;

use anyhow::Context;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use tg_llava_core::generate::{GenerateOptions, Request};
use tg_llava_core::llm::Llm;
use tg_llava_core::model::{GuideTexts, ModelBatch, TgLlava};
use tg_llava_core::multimodal::SpliceRow;
use tg_llava_core::quant::PackedMatrix;
use tg_llava_core::tokenizer::TextTokenizer;
use tg_llava_core::weights::{LoadOptions, Quantization, TensorSource, load_model, open_sources};

use super::ParityOptions;
use super::golden::{Array, Golden, Group, to_host};
use super::model::generate;
use super::report::Row;
use crate::quantised;

/// As for model cases.
const FORWARD: f64 = 1e-4;

/// The weights, where they are in a GGUF file.
const GGUF: &str = "decoder.gguf";

/// What begins the names of recorded weights, as quantised ones must come out.
const DEQUANTISED: &str = "dequantised.";

#[derive(Deserialize)]
struct Greedy {
    cases: Vec<GreedyCase>,
}

#[derive(Deserialize)]
struct GreedyCase {
    prompt: String,
    prompt_ids: Vec<i64>,
    new_ids: Vec<i64>,
}

/// Whether `dir` holds a decoder's recordings and not a whole model's.
pub(super) fn is_decoder(dir: &Path) -> bool {
    dir.join("greedy.json").is_file()
        || Golden::read(&dir.join("golden.safetensors"))
            .is_ok_and(|golden| golden.float("logits").is_some() && golden.int("input_ids").is_some())
}

/// Compares scores and greedy answers.
pub(super) fn run(dir: &Path, device: &Device, options: &ParityOptions) -> anyhow::Result<Vec<Row>> {
    let load = LoadOptions {
        dtype: options.dtype,
        largest_buffer: options.largest_buffer,
        base: Some(dir.join(GGUF)).filter(|file| file.is_file()),
        ..LoadOptions::default()
    };
    let model = load_model(dir, device, &load, &mut |_| {})?.model;
    let mut rows = Vec::new();
    let golden = dir.join("golden.safetensors");
    if golden.is_file() {
        let golden = Golden::read(&golden)?;
        let source = open_sources(dir, model.config(), load.base.as_deref())?;
        rows.extend(dequantised(&source, &golden)?.row());
        if golden.int("forced_ids").is_some() && quantised::computes(device, options.dtype) {
            let load = LoadOptions { quantization: Some(Quantization::default()), ..load };
            let model = load_model(dir, device, &load, &mut |_| {})?.model;
            let group = match PackedMatrix::may_lie_on(device) {
                false => decode(&model, &golden)?,
                true => one_by_one(&model, &golden, options)?,
            };
            rows.extend(group.row());
        }
        // Of integer activations, which only the CPU has.
        ["forced_ids", "decode_logits"].into_iter().for_each(|name| golden.skip(name));
        rows.extend(recorded(&model, &golden, options)?);
    }
    let greedy = dir.join("greedy.json");
    if greedy.is_file() {
        let text = std::fs::read_to_string(&greedy)?;
        let greedy: Greedy = serde_json::from_str(&text).context("greedy.json")?;
        let tokenizer = TextTokenizer::from_dir(dir)?;
        let mut ids = Group::new("prompt ids", 0.0);
        let mut answers = Group::new("greedy answers", 0.0);
        for case in &greedy.cases {
            let ours: Vec<i64> = tokenizer.encode(&case.prompt, false)?.into_iter().map(i64::from).collect();
            ids.equal(&case.prompt, &ours, &case.prompt_ids);
            answers.equal(
                &case.prompt,
                &answer(&model, &case.prompt_ids, case.new_ids.len())?,
                &case.new_ids,
            );
        }
        rows.extend([ids, answers].into_iter().filter_map(Group::row));
    }
    Ok(rows)
}

/// Recorded weights come out to the bit.
fn dequantised(source: &TensorSource, golden: &Golden) -> anyhow::Result<Group> {
    let mut group = Group::new("dequantised", 0.0);
    for name in golden.names().filter(|name| name.starts_with(DEQUANTISED)) {
        let key = &name[DEQUANTISED.len()..];
        let stored = source.get(key).with_context(|| format!("{key} is not in the weights"))?;
        let mut values = Vec::with_capacity(stored.num_elements());
        stored.read_values(|piece| values.extend_from_slice(piece))?;
        let ours = Array { shape: stored.shape.clone(), values };
        group.floats(name, &ours, golden.float(name).with_context(|| format!("{name} is no float"))?);
    }
    Ok(group)
}

/// Behind the prompt, then behind each forced id: products of one row with the stored blocks, whose activations are integers.
fn decode(model: &TgLlava, golden: &Golden) -> anyhow::Result<Group> {
    let mut group = Group::new("scores token by token", FORWARD);
    let forced = golden.int("forced_ids").context("forced_ids")?;
    let expected = golden.float("decode_logits").context("decode_logits")?;
    let prompt = &golden.int("input_ids").context("input_ids")?.values;
    let values = token_by_token(&model.llm, model.llm.embed(prompt).unsqueeze(), &forced.values)?;
    group.floats("decode_logits", &Array { shape: expected.shape.clone(), values }, expected);
    Ok(group)
}

/// The recorded text read token by token: products of one row with the stored blocks, whose activations are floats.
fn one_by_one(model: &TgLlava, golden: &Golden, options: &ParityOptions) -> anyhow::Result<Group> {
    let mut group = Group::new("scores token by token", options.tolerance(FORWARD));
    let expected = golden.float("logits").context("logits")?;
    let ids = &golden.int("input_ids").context("input_ids")?.values;
    let (first, rest) = ids.split_at(1);
    let values = token_by_token(&model.llm, model.llm.embed(first).unsqueeze(), rest)?;
    group.floats("logits", &Array { shape: expected.shape.clone(), values }, expected);
    Ok(group)
}

/// Scores behind `prompt`, `[1, len, hidden]`, then behind each of `forced`, one token at a time with a cache.
pub(super) fn token_by_token(llm: &Llm, prompt: Tensor<3>, forced: &[i64]) -> anyhow::Result<Vec<f32>> {
    let mut cache = llm.new_cache();
    let slot = cache.take(prompt.dims()[1], forced.len());
    let mut scores = Vec::new();
    for inputs in std::iter::once(prompt).chain(forced.iter().map(|&id| llm.embed(&[id]).unsqueeze())) {
        let len = inputs.dims()[1];
        let states = llm.forward(inputs, cache.texts(&[(slot, len)]));
        let last = states.narrow(1, len - 1, 1).squeeze_dim::<2>(0);
        scores.extend(to_host(llm.logits(last))?.values);
    }
    Ok(scores)
}

fn recorded(model: &TgLlava, golden: &Golden, options: &ParityOptions) -> anyhow::Result<Vec<Row>> {
    let prompt = golden.int("input_ids").context("input_ids")?.values.clone();
    let output = model.forward(&text_batch(&prompt))?;
    let [batch, len, width] = output.hidden_states.dims();
    let logits = to_host(model.llm.logits(output.hidden_states.reshape([batch * len, width])))?;
    let expected = golden.float("logits").context("logits")?;
    let mut scores = Group::new("scores", options.tolerance(FORWARD));
    scores.floats("logits", &Array { shape: expected.shape.clone(), values: logits.values }, expected);
    let mut greedy = Group::new("greedy ids", 0.0);
    if let Some(generated) = golden.int("generated") {
        greedy.equal("generated", &answer(model, &prompt, generated.values.len())?, &generated.values);
    }
    let mut all = Group::new("all tensors compared", 0.0);
    all.equal("left out", &golden.unseen(), &Vec::new());
    Ok([scores, greedy, all].into_iter().filter_map(Group::row).collect())
}

fn answer(model: &TgLlava, prompt: &[i64], count: usize) -> anyhow::Result<Vec<i64>> {
    let options = GenerateOptions { max_new_tokens: count, ..GenerateOptions::default() };
    Ok(generate(model, Request::text(prompt.to_vec(), options))?.0)
}

fn text_batch(ids: &[i64]) -> ModelBatch {
    ModelBatch {
        rows: vec![SpliceRow { input_ids: ids.to_vec(), labels: None, images: Vec::new() }],
        images: None,
        guides: GuideTexts { ids: Vec::new(), pad_id: 0, sample_of_image: Vec::new() },
    }
}
