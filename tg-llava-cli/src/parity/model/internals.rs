//! Hidden states inside towers, bridges and decoder, computed from the model's own parts.

use std::collections::BTreeMap;

use anyhow::Context;
use burn::tensor::Tensor;
use tg_llava_core::config::GuidePadding;
use tg_llava_core::llm::TokenBatch;
use tg_llava_core::model::{ImageBatch, TgLlava};
use tg_llava_core::nn::{cast_to, rms_norm};
use tg_llava_core::text::{GuideInput, TextFeatures};

use super::to_host;
use crate::parity::golden::Array;

/// Tensors by their golden names.
pub(super) type Trace = BTreeMap<String, Array<f32>>;

/// The text tower's states on a batch of guides.
pub(super) fn text(
    model: &TgLlava,
    guides: &[Vec<i64>],
    pad: i64,
    trace: &mut Trace,
) -> anyhow::Result<(TextFeatures, GuideInput)> {
    let tower = model.text_tower.as_ref().context("the case has no text tower")?;
    let config = model.multimodal()?.text.as_ref().context("the case has no text tower")?;
    let input = GuideInput::new(guides, pad, GuidePadding::Visible, config)?;
    let bias = tower.attention_bias(&input);
    let mut hidden = tower.embed(&input.ids);
    trace.insert("text_embed".into(), to_host(hidden.clone())?);
    for (index, layer) in tower.layers.iter().enumerate() {
        hidden = layer.forward(hidden, bias.as_ref());
        trace.insert(format!("text_layer{index}"), to_host(hidden.clone())?);
    }
    let features = tower.forward(&input);
    trace.insert("text_last_hidden".into(), to_host(features.last_hidden_state.clone())?);
    trace.insert("text_pooled".into(), to_host(features.pooled.clone())?);
    Ok((features, input))
}

/// Every hidden state of the vision tower, the features of pictures and crops.
pub(super) fn vision(model: &TgLlava, images: &ImageBatch, trace: &mut Trace) -> anyhow::Result<()> {
    let tower = model.vision_tower.as_ref().context("the case has no vision tower")?;
    let pixels = cast_to(images.pixels.clone(), model.llm.dtype());
    for index in 0..=tower.layers.len() {
        trace.insert(format!("vision_hidden{index}"), to_host(tower.hidden_state(pixels.clone(), index))?);
    }
    let features = model.vision_features(images)?;
    trace.insert("vision_features".into(), to_host(features.images)?);
    if let Some(crops) = features.crops {
        trace.insert("patch_features".into(), to_host(crops)?);
    }
    Ok(())
}

/// States inside the feature guide, and what it does to the features.
pub(super) fn guide(
    model: &TgLlava,
    images: &ImageBatch,
    text: &TextFeatures,
    trace: &mut Trace,
) -> anyhow::Result<()> {
    let guide = model.feature_guide.as_ref().context("the case has no feature guide")?;
    let projector = model.projector.as_ref().context("the case has no projector")?;
    let text_in = guide.resize_linear.forward(text.pooled.clone());
    let batch = text_in.dims()[0];
    trace.insert("qformer_text_in".into(), to_host(text_in.clone())?);
    let context: Tensor<3> = text_in.unsqueeze_dim(1);
    let mut hidden = guide.qformer.embed(guide.queries(batch));
    trace.insert("qformer_embed_ln".into(), to_host(hidden.clone())?);
    for (index, layer) in guide.qformer.layers.iter().enumerate() {
        hidden = layer.attention.forward(hidden.clone(), &hidden);
        trace.insert(format!("qformer_layer{index}_self_attn"), to_host(hidden.clone())?);
        if let Some(cross) = &layer.cross_attention {
            hidden = cross.forward(hidden, &context);
            trace.insert(format!("qformer_layer{index}_cross_attn"), to_host(hidden.clone())?);
        }
        hidden = layer.ffn.forward(hidden);
        trace.insert(format!("qformer_layer{index}"), to_host(hidden.clone())?);
    }
    let mask = guide.forward(text.pooled.clone());
    trace.insert("guide".into(), to_host(mask.clone())?);
    let guided = model.vision_features(images)?.images + mask;
    trace.insert("guided_features".into(), to_host(guided.clone())?);
    trace.insert("projected".into(), to_host(projector.forward(guided))?);
    Ok(())
}

/// States inside the detail perceiver.
pub(super) fn detail(
    model: &TgLlava,
    images: &ImageBatch,
    text: &TextFeatures,
    input: &GuideInput,
    trace: &mut Trace,
) -> anyhow::Result<()> {
    let detail = model.detail_perceiver.as_ref().context("the case has no detail perceiver")?;
    let crops = model.vision_features(images)?.crops.context("the case has no crops")?;
    let patches = detail.embed_crops(crops.clone());
    trace.insert("perceiver_patches_in".into(), to_host(patches.clone())?);
    let text_in = detail.resize_linear.forward(text.last_hidden_state.clone());
    trace.insert("perceiver_text_in".into(), to_host(text_in.clone())?);
    let bias = detail.text_bias(&input.context_mask);
    let mut latents = detail.perceiver.queries(crops.dims()[0]);
    for (index, layer) in detail.perceiver.layers.iter().enumerate() {
        let (context, bias) = match index {
            0 => (text_in.clone(), bias.as_ref()),
            _ => (patches.clone(), None),
        };
        let attended = layer.self_attn.forward(
            rms_norm(&layer.input_latents_norm, latents.clone()),
            rms_norm(&layer.input_context_norm, context.clone()),
            bias,
        );
        trace.insert(format!("perceiver_layer{index}_attn"), to_host(attended)?);
        latents = layer.forward(latents, context, bias);
        trace.insert(format!("perceiver_layer{index}"), to_host(latents.clone())?);
    }
    trace.insert("perceiver_out".into(), to_host(rms_norm(&detail.perceiver.norm, latents))?);
    let tokens = detail.forward(crops, text.last_hidden_state.clone(), &input.context_mask);
    trace.insert("detail_tokens".into(), to_host(tokens)?);
    Ok(())
}

/// Every hidden state of the decoder; returns the last.
pub(super) fn decoder(
    model: &TgLlava,
    inputs_embeds: Tensor<3>,
    tokens: &TokenBatch,
    trace: &mut Trace,
) -> anyhow::Result<Tensor<3>> {
    let context = model.llm.context(tokens, None);
    let mut hidden = inputs_embeds.clone();
    for (index, layer) in model.llm.layers.iter().enumerate() {
        hidden = layer.forward(hidden, &context, None);
        trace.insert(format!("llm_layer{index}"), to_host(hidden.clone())?);
    }
    let last = model.llm.forward(inputs_embeds, tokens, None);
    trace.insert("llm_norm".into(), to_host(last.clone())?);
    Ok(last)
}
