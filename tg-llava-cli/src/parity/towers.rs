//! A CLIP or SigLIP folder with recorded hidden states.

use std::path::Path;

use anyhow::Context;
use burn::tensor::{Device, Tensor, TensorData};
use tg_llava_core::config::{GuidePadding, multimodal, read_tower_configs, tiny};
use tg_llava_core::model::TgLlava;
use tg_llava_core::preprocess::{DecodeOptions, ImageProcessor, decode_file};
use tg_llava_core::text::GuideInput;
use tg_llava_core::tokenizer::{GuideCut, GuideTokenizer};
use tg_llava_core::weights::{apply, open_towers};

use super::ParityOptions;
use super::golden::{Array, Golden, Group, to_host};
use super::report::Row;

/// As for model cases; pictures as in preprocessing.
const FORWARD: f64 = 1e-4;
const PIXELS: f64 = 1e-6;

/// Tensors of the recording that the model never needs: the pooling head, and the norm before it.
const UNUSED: [&str; 2] = ["vision.pooler_output", "vision.last_hidden_state"];

/// Whether `dir` holds towers.
pub(super) fn is_towers(dir: &Path) -> bool {
    read_tower_configs(dir).is_ok()
}

/// Compares hidden states, the pooled text, and where they were recorded a picture and token ids.
pub(super) fn run(dir: &Path, device: &Device, options: &ParityOptions) -> anyhow::Result<Vec<Row>> {
    let golden = Golden::read(&dir.join("golden.safetensors"))?;
    let model = load(dir, device, options)?;
    let mm = model.multimodal()?;
    let mut vision = Group::new("vision tower", options.tolerance(FORWARD));
    let pixels = golden.float("pixel_values").context("pixel_values")?;
    let tower = model.vision_tower.as_ref().context("no vision tower")?;
    let on_device: Tensor<4> =
        Tensor::from_data(TensorData::new(pixels.values.clone(), pixels.shape.clone()), device);
    for index in 0..=mm.vision.num_hidden_layers {
        if let Some(expected) = golden.float(&format!("vision.hidden_states.{index}")) {
            let ours = to_host(tower.hidden_state(on_device.clone(), index))?;
            vision.floats(&format!("hidden_states.{index}"), &ours, expected);
        }
    }
    let mut text = Group::new("text tower", options.tolerance(FORWARD));
    let config = mm.text.as_ref().context("no text tower")?;
    let ids = golden.int("text.input_ids").context("text.input_ids")?.rows();
    let input = GuideInput::new(&ids, 0, GuidePadding::Visible, config)?;
    let features = model.text_tower.as_ref().context("no text tower")?.forward(&input);
    for (name, ours) in [
        ("text.last_hidden_state", to_host(features.last_hidden_state)?),
        ("text.pooler_output", to_host(features.pooled)?),
    ] {
        text.floats(name, &ours, golden.float(name).context(name)?);
    }
    for name in UNUSED {
        golden.skip(name);
    }
    let mut all = Group::new("all tensors compared", 0.0);
    all.equal("left out", &golden.unseen(), &Vec::new());
    let groups = [vision, text, all, picture(dir, pixels)?, tokens(dir, config.max_position_embeddings)?];
    Ok(groups.into_iter().filter_map(Group::row).collect())
}

/// A model whose towers are the folder's; what else a model needs keeps its random values.
fn load(dir: &Path, device: &Device, options: &ParityOptions) -> anyhow::Result<TgLlava> {
    let (vision, text) = read_tower_configs(dir)?;
    let mut config = tiny(32);
    let width = config.llm.hidden_size;
    config.multimodal = Some(multimodal(
        vision.context("config.json describes no vision tower")?,
        text.context("config.json describes no text tower")?,
        "towers",
        width,
    ));
    let model = config.init(device)?;
    let no_tower = |key: &str| !key.contains("_tower.");
    Ok(apply(model, &open_towers(dir)?, options.dtype, &no_tower, &mut |_| Ok(()))?.0)
}

/// The last row of the pixels is `picture.png`, where there is one.
fn picture(dir: &Path, pixels: &Array<f32>) -> anyhow::Result<Group> {
    let mut group = Group::new("picture", PIXELS);
    let file = dir.join("picture.png");
    if file.is_file() {
        let processor = ImageProcessor::from_file(dir.join("preprocessor_config.json"))?;
        let fitted =
            processor.fit_picture(&decode_file(&file, &DecodeOptions::default())?, Default::default());
        let expected = pixels.rows().pop().context("pixel_values is empty")?;
        let shape = pixels.shape[1..].to_vec();
        let ours = Array { shape: shape.clone(), values: processor.normalize(&fitted).data };
        group.floats("picture.png", &ours, &Array { shape, values: expected });
    }
    Ok(group)
}

/// One text with the ids that the tower's own tokenizer gives it, whole, and cut and padded.
#[derive(serde::Deserialize)]
struct RecordedText {
    kind: String,
    text: String,
    input_ids: Vec<i64>,
    padded_ids: Vec<i64>,
}

/// Recorded ids of the tower's tokenizer.
fn tokens(dir: &Path, positions: usize) -> anyhow::Result<Group> {
    let mut group = Group::new("guide ids", 0.0);
    let file = dir.join("tokenizer_golden.json");
    if file.is_file() {
        let texts: Vec<RecordedText> =
            serde_json::from_str(&std::fs::read_to_string(&file)?).context("tokenizer_golden.json")?;
        let tokenizer = GuideTokenizer::from_dir(dir, Some(positions))?;
        // A question that spells out a special token stays text here: nobody may end the guide from within.
        for case in texts.iter().filter(|case| case.kind != "special token in the text") {
            group.equal(&case.text, &tokenizer.encode(&case.text, GuideCut::Whole)?, &case.input_ids);
            let mut padded = tokenizer.encode(&case.text, GuideCut::KeepEnd)?;
            padded.resize(positions, tokenizer.pad_id());
            group.equal(&format!("{} (padded)", case.text), &padded, &case.padded_ids);
        }
    }
    Ok(group)
}
