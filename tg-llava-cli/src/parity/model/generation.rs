//! Recorded answers: greedy ids, scores, and the whole way from a photo and a question.

use anyhow::Context;
use burn::tensor::{DType, Device, Tensor};
use serde_json::Value;
use tg_llava_core::assistant::{Assistant, AssistantOptions, Chat};
use tg_llava_core::config::GuidePadding;
use tg_llava_core::generate::{Engine, Event, GenerateOptions, Request};
use tg_llava_core::model::{EncodedImage, GuideTexts, ImageBatch, ModelBatch, TgLlava};
use tg_llava_core::multimodal::{IMAGE_TOKEN_INDEX, SpliceRow};
use tg_llava_core::preprocess::{DecodeOptions, decode_file};

use super::inputs::{prepare_all, to_device};
use super::{Case, to_host};
use crate::parity::golden::{Array, Golden, Group};
use crate::parity::report::Row;

/// Scores are as exact as the pass they come from; one grey level of a picture is far above this.
const TOLERANCE: f64 = 1e-4;
const PIXELS: f64 = 1e-6;

/// Compares every recorded answer.
pub(super) fn run(case: &Case<'_>) -> anyhow::Result<Vec<Row>> {
    let path = case.dir.join("generation.json");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path)?;
    let recorded: serde_json::Map<String, Value> = serde_json::from_str(&text).context("generation.json")?;
    let golden = Golden::read(&case.dir.join("generation.safetensors"))?;
    let model = case.load(case.device)?;
    let mut rows = Vec::new();
    // Names with an underscore are remarks.
    for (name, record) in recorded.iter().filter(|(name, _)| !name.starts_with('_')) {
        let row = match record.get("photo") {
            Some(_) => end_to_end(case, name, record, &golden)?,
            None => answer(case, &model, name, record, &golden)?,
        };
        rows.extend(row);
    }
    Ok(rows)
}

fn ids(value: Option<&Value>) -> Vec<i64> {
    value
        .and_then(Value::as_array)
        .map_or_else(Vec::new, |ids| ids.iter().filter_map(Value::as_i64).collect())
}

fn answer(
    case: &Case<'_>,
    model: &TgLlava,
    name: &str,
    record: &Value,
    golden: &Golden,
) -> anyhow::Result<Vec<Row>> {
    let inputs = record.get("inputs").and_then(Value::as_str).unwrap_or(name);
    let batch = batch(case, case.device, inputs, golden)?;
    let expected = ids(record.get("output_ids"));
    let budget = record.get("max_new_tokens").and_then(Value::as_u64).unwrap_or(24) as usize;
    let options = GenerateOptions {
        max_new_tokens: budget,
        eos_token_ids: ids(record.get("eos_token_id").map(|id| Value::from(vec![id.clone()])).as_ref()),
        ..GenerateOptions::default()
    };
    let (answer, scores) = generate(model, request(model, &batch, options)?)?;
    let mut exact = Group::new(format!("{name}: greedy ids"), 0.0);
    exact.equal("output_ids", &answer, &expected);
    let mut close = Group::new(format!("{name}: scores"), case.tolerance(TOLERANCE));
    if let Some(golden) = golden.float(&format!("{name}.scores")) {
        close.floats("scores", &Array { shape: golden.shape.clone(), values: scores }, golden);
    }
    let mut uncached = Group::new(format!("{name}: cached = uncached"), 0.0);
    uncached.equal("output_ids", &without_cache(model, &batch, expected.len())?, &answer);
    Ok([exact, close, uncached].into_iter().filter_map(Group::row).collect())
}

/// The request of a batch of one.
pub(super) fn request(
    model: &TgLlava,
    batch: &ModelBatch,
    options: GenerateOptions,
) -> anyhow::Result<Request> {
    let encode = |images| model.vision_features(images).map(EncodedImage::from);
    let images = batch.images.iter().map(encode).collect::<Result<_, _>>()?;
    Ok(Request {
        images,
        guide_ids: batch.guides.ids.first().cloned().unwrap_or_default(),
        guide_pad: batch.guides.pad_id,
        ..Request::text(batch.rows[0].input_ids.clone(), options)
    })
}

/// The tokens of an answer, and the scores that they were chosen by, one after the other.
pub(in crate::parity) fn generate(model: &TgLlava, request: Request) -> anyhow::Result<(Vec<i64>, Vec<f32>)> {
    let mut engine = Engine::new(model, None);
    engine.admit(request)?;
    let (mut answer, mut all) = (Vec::new(), Vec::new());
    while !engine.is_empty() {
        for event in engine.step() {
            match event {
                Event::Token { token, scores, .. } => {
                    answer.push(token);
                    all.extend(scores);
                }
                Event::Finished { .. } => {}
                Event::Failed { error, .. } => return Err(error.into()),
            }
        }
    }
    Ok((answer, all))
}

/// The same answer by running the whole text anew for every token.
fn without_cache(model: &TgLlava, batch: &ModelBatch, count: usize) -> anyhow::Result<Vec<i64>> {
    let mut batch = batch.clone();
    let mut answer = Vec::new();
    for _ in 0..count {
        let output = model.forward(&batch)?;
        let [_, len, width] = output.hidden_states.dims();
        let last: Tensor<2> = output.hidden_states.narrow(1, len - 1, 1).reshape([1, width]);
        let scores = to_host(model.llm.logits(last))?.values;
        let best = (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
        answer.push(best as i64);
        batch.rows[0].input_ids.push(best as i64);
    }
    Ok(answer)
}

/// The batch of one that `inputs` records, on `device`.
pub(super) fn batch(
    case: &Case<'_>,
    device: &Device,
    inputs: &str,
    golden: &Golden,
) -> anyhow::Result<ModelBatch> {
    let key = format!("{inputs}.input_ids");
    let input_ids = golden.int(&key).context(key)?.values.clone();
    let shown = input_ids.contains(&IMAGE_TOKEN_INDEX);
    let pictures = golden.float(&format!("{inputs}.images")).map(prepare_all).filter(|_| shown);
    let guide = golden.int(&format!("{inputs}.text_guide_ids")).map(|ids| ids.values.clone());
    Ok(ModelBatch {
        rows: vec![SpliceRow { images: if shown { vec![0] } else { Vec::new() }, input_ids, labels: None }],
        images: pictures.map(|pictures| ImageBatch::new(&pictures, true, device)),
        guides: GuideTexts {
            ids: guide.into_iter().collect(),
            pad_id: case.meta.clip.pad,
            sample_of_image: if shown { vec![0] } else { Vec::new() },
        },
    })
}

/// From a photo and a question to the answer's ids, through everything a user goes through.
fn end_to_end(case: &Case<'_>, name: &str, record: &Value, golden: &Golden) -> anyhow::Result<Vec<Row>> {
    let options = AssistantOptions {
        dtype: case.options.dtype,
        guide_padding: Some(GuidePadding::Masked),
        template: record.get("conversation_version").and_then(Value::as_str).map(str::to_owned),
        ..AssistantOptions::default()
    };
    let assistant = Assistant::load(case.dir, case.device, &options, &mut |_| {})?;
    let text = |key: &str| record.get(key).and_then(Value::as_str).with_context(|| format!("{name}.{key}"));
    let picture = decode_file(case.dir.join(text("photo")?), &DecodeOptions::default())?;
    let question = text("question")?;

    let mut exact = Group::new(format!("{name}: prompt and ids"), 0.0);
    let mut chat = Chat::new();
    chat.show(assistant.encode_image(&picture)?);
    chat.ask(question)?;
    exact.equal("prompt", &assistant.prompt(&chat)?.as_str(), &text("prompt")?);
    let expected = ids(record.get("output_ids"));
    let options = GenerateOptions { max_new_tokens: expected.len(), ..GenerateOptions::default() };
    let request = assistant.request(&chat, &options)?;
    exact.equal("input_ids", &request.input_ids, &ids(record.get("input_ids")));
    exact.equal("text_guide_ids", &request.guide_ids, &ids(record.get("text_guide_ids")));

    let mut pixels = Group::new(format!("{name}: pixels"), PIXELS);
    if let Some(golden) = golden.float(&format!("{name}.images")) {
        let mm = assistant.model.multimodal()?;
        let processor = assistant.processor.as_ref().context("no image processor")?;
        let prepared = processor.prepare(&picture, mm.aspect_ratio, mm.detail_source);
        pixels.floats("images", &Array { shape: golden.shape.clone(), values: prepared.pixels }, golden);
        // The golden tensor must also survive the way onto the device.
        let there: Tensor<4> = to_device(golden, case.device);
        pixels.floats("images on the device", &to_host(there)?, golden);
    }

    let mut answer = assistant.answer(&chat, &options)?;
    let shown: String = answer.by_ref().collect::<Result<_, _>>()?;
    let mut ours = Group::new(format!("{name}: answer"), 0.0);
    ours.equal("output_ids", &answer.token_ids().to_vec(), &expected);
    if let Some(golden) = record.get("text_skip_special").and_then(Value::as_str) {
        ours.equal("text", &shown.trim(), &golden.trim());
    }
    let mut rows: Vec<Row> = [exact, pixels, ours].into_iter().filter_map(Group::row).collect();
    if case.options.dtype != DType::F32 {
        // Half precision may choose another token where two are close; pixels and ids stay exact.
        rows.retain(|row| !row.group.ends_with(": answer"));
    }
    Ok(rows)
}
