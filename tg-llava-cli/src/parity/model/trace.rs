//! What a pass through the model gives, by the names of the golden tensors.

use std::collections::{BTreeMap, btree_map::Entry};

use anyhow::Context;
use burn::tensor::Tensor;
use tg_llava_core::model::{ModelBatch, TgLlava};
use tg_llava_core::multimodal::SplicePlan;
use tg_llava_core::nn::cast_to;
use tg_llava_core::pass::{Site, Trace};

use super::to_host;
use crate::parity::golden::Array;

/// Tensors by their golden names.
pub(super) type Traced = BTreeMap<String, Array<f32>>;

/// Tensors that are recorded without their axis of length 1.
const FLAT: [&str; 2] = ["text_pooled", "qformer_text_in"];

/// Runs `batch` through `model`, as far as the bridges where there is no plan for the decoder. Returns what every step gave, and
/// the last hidden states.
pub(super) fn trace(
    model: &TgLlava,
    batch: &ModelBatch,
    plan: Option<&SplicePlan>,
) -> anyhow::Result<(Traced, Option<Tensor<3>>)> {
    let images = batch.images.as_ref().context("the scenario has no pictures")?;
    let count = images.pixels.dims()[0];
    let mut traced = Traced::new();
    let mut failed = None;
    let mut pass = Trace::new(|at, outputs: &[Tensor<3>]| {
        for (name, tensor) in named(at, outputs, count) {
            match to_host(tensor) {
                Ok(mut array) => {
                    if FLAT.contains(&name.as_str()) {
                        array.shape.remove(1);
                    }
                    // Pictures come before crops, so the first chunk of the vision tower has them.
                    traced.entry(name).or_insert(array);
                }
                Err(error) => failed = Some(error),
            }
        }
    });
    let hidden = match plan {
        Some(plan) => Some(model.walk(&mut pass, batch, plan)?),
        None => {
            let features = model.walk_vision(&mut pass, images)?;
            model.walk_image_tokens(&mut pass, features, &batch.guides)?;
            None
        }
    };
    if let Some(error) = failed {
        return Err(error);
    }
    // Blocks behind the chosen features are no part of the pass, but of the recording.
    let tower = model.vision_tower.as_ref().context("the case has no vision tower")?;
    let pixels = cast_to(images.pixels.clone(), model.llm.dtype());
    for index in 0..=tower.layers.len() {
        if let Entry::Vacant(missing) = traced.entry(format!("vision_hidden{index}")) {
            missing.insert(to_host(tower.hidden_state(pixels.clone(), index))?);
        }
    }
    Ok((traced, hidden))
}

/// The golden names of what the step at `at` gives for a batch of `count` pictures.
fn named(at: Site, outputs: &[Tensor<3>], count: usize) -> Vec<(String, Tensor<3>)> {
    let names = match at {
        Site::VisionEmbed => vec!["vision_hidden0".to_owned()],
        Site::VisionBlock(block) => vec![format!("vision_hidden{}", block + 1)],
        Site::VisionFeatures => ["vision_features", "patch_features"].map(String::from).to_vec(),
        Site::TextEmbed => vec!["text_embed".to_owned()],
        Site::TextBlock(block) => vec![format!("text_layer{block}")],
        Site::TextFeatures => ["text_last_hidden", "text_pooled"].map(String::from).to_vec(),
        Site::Guides => Vec::new(),
        Site::GuideEmbed => ["qformer_embed_ln", "qformer_text_in"].map(String::from).to_vec(),
        Site::GuideSelfAttention(layer) => vec![format!("qformer_layer{layer}_self_attn")],
        Site::GuideCrossAttention(layer) => vec![format!("qformer_layer{layer}_cross_attn")],
        Site::GuideBlock(layer) => vec![format!("qformer_layer{layer}")],
        Site::GuideMask => vec!["guide".to_owned()],
        Site::GuidedFeatures => vec!["guided_features".to_owned()],
        Site::Projector => vec!["projected".to_owned()],
        Site::DetailEmbed => ["perceiver_patches_in", "perceiver_text_in"].map(String::from).to_vec(),
        Site::DetailAttention(layer) => vec![format!("perceiver_layer{layer}_attn")],
        Site::DetailBlock(layer) => vec![format!("perceiver_layer{layer}")],
        Site::DetailNorm => vec!["perceiver_out".to_owned()],
        Site::DetailTokens => vec!["detail_tokens".to_owned()],
        Site::ImageTokens => vec!["image_features".to_owned()],
        Site::Splice => vec!["inputs_embeds".to_owned()],
        Site::DecoderBlock(block) => vec![format!("llm_layer{block}")],
        Site::DecoderNorm => vec!["llm_norm".to_owned()],
    };
    let pictures = |tensor: Tensor<3>| match at {
        Site::VisionEmbed | Site::VisionBlock(_) => tensor.narrow(0, 0, count),
        _ => tensor,
    };
    names.into_iter().zip(outputs.iter().cloned().map(pictures)).collect()
}
