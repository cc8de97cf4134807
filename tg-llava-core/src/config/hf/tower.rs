use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::in_file;
use crate::config::{EosRule, TextTowerConfig, TowerFamily, VisionTowerConfig};
use crate::error::{Error, Result};
use crate::nn::Activation;

#[derive(Debug, Default, Deserialize)]
struct RawTower {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_channels: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    eos_token_id: Option<i64>,
}

/// The parts of a tower folder's config.json: the whole model's, or one tower's alone.
pub(crate) struct TowerFile {
    /// The vision tower, where the file describes one.
    pub vision: Option<VisionTowerConfig>,
    /// The text tower, where the file describes one.
    pub text: Option<TextTowerConfig>,
}

/// Reads a CLIP or SigLIP config.json, whether it describes both towers or one.
pub(crate) fn read_tower_file(path: &Path) -> Result<TowerFile> {
    let value: Value = super::read_json(path)?;
    let kind = value.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let family = match kind.as_str() {
        k if k.starts_with("clip") => TowerFamily::Clip,
        k if k.starts_with("siglip") => TowerFamily::Siglip,
        other => {
            return Err(Error::Config(format!(
                "{}: model_type = {other:?}; a tower is clip or siglip",
                path.display()
            )));
        }
    };
    let (vision, text) = match kind.as_str() {
        "clip" | "siglip" => (
            Some(value.get("vision_config").cloned().unwrap_or(json!({}))),
            Some(value.get("text_config").cloned().unwrap_or(json!({}))),
        ),
        k if k.contains("vision") => (Some(value), None),
        _ => (None, Some(value)),
    };
    Ok(TowerFile {
        vision: vision.map(|v| vision_from_json(&v, family, path)).transpose()?,
        text: text.map(|v| text_from_json(&v, family, path)).transpose()?,
    })
}

/// The family that an embedded tower config names in `model_type`.
pub(super) fn family_of(value: &Value) -> TowerFamily {
    let siglip = value.get("model_type").and_then(Value::as_str).is_some_and(|t| t.starts_with("siglip"));
    if siglip { TowerFamily::Siglip } else { TowerFamily::Clip }
}

/// A vision config with transformers' defaults for absent keys.
pub(super) fn vision_from_json(value: &Value, family: TowerFamily, path: &Path) -> Result<VisionTowerConfig> {
    let raw: RawTower = serde_json::from_value(value.clone()).map_err(|e| Error::json(path, e))?;
    let clip = family == TowerFamily::Clip;
    let config = VisionTowerConfig {
        family,
        hidden_size: raw.hidden_size.unwrap_or(768),
        intermediate_size: raw.intermediate_size.unwrap_or(3072),
        num_hidden_layers: raw.num_hidden_layers.unwrap_or(12),
        num_attention_heads: raw.num_attention_heads.unwrap_or(12),
        num_channels: raw.num_channels.unwrap_or(3),
        image_size: raw.image_size.unwrap_or(224),
        patch_size: raw.patch_size.unwrap_or(if clip { 32 } else { 16 }),
        hidden_act: activation(&raw, family).map_err(in_file(path))?,
        layer_norm_eps: raw.layer_norm_eps.unwrap_or(if clip { 1e-5 } else { 1e-6 }),
    };
    config.validate().map_err(in_file(path))?;
    Ok(config)
}

/// A text config with transformers' defaults for absent keys.
pub(super) fn text_from_json(value: &Value, family: TowerFamily, path: &Path) -> Result<TextTowerConfig> {
    let raw: RawTower = serde_json::from_value(value.clone()).map_err(|e| Error::json(path, e))?;
    let clip = family == TowerFamily::Clip;
    let pick = |value: Option<usize>, of_clip: usize, of_siglip: usize| {
        value.unwrap_or(if clip { of_clip } else { of_siglip })
    };
    let config = TextTowerConfig {
        family,
        vocab_size: pick(raw.vocab_size, 49_408, 32_000),
        hidden_size: pick(raw.hidden_size, 512, 768),
        intermediate_size: pick(raw.intermediate_size, 2048, 3072),
        num_hidden_layers: raw.num_hidden_layers.unwrap_or(12),
        num_attention_heads: pick(raw.num_attention_heads, 8, 12),
        max_position_embeddings: pick(raw.max_position_embeddings, 77, 64),
        hidden_act: activation(&raw, family).map_err(in_file(path))?,
        layer_norm_eps: raw.layer_norm_eps.unwrap_or(if clip { 1e-5 } else { 1e-6 }),
        // OpenAI's configs say 2, which is not the end token; transformers then takes the highest id.
        eos_rule: match raw.eos_token_id {
            Some(2) => EosRule::HighestId,
            other => EosRule::FirstOf(other.unwrap_or(49_407)),
        },
    };
    config.validate().map_err(in_file(path))?;
    Ok(config)
}

fn activation(raw: &RawTower, family: TowerFamily) -> Result<Activation> {
    match &raw.hidden_act {
        Some(name) => Activation::from_hf(name),
        None if family == TowerFamily::Clip => Ok(Activation::QuickGelu),
        None => Ok(Activation::GeluTanh),
    }
}

/// A vision config as transformers writes it.
pub(super) fn vision_to_json(config: &VisionTowerConfig) -> Value {
    let kind = if config.has_class_token() { "clip_vision_model" } else { "siglip_vision_model" };
    json!({
        "model_type": kind,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_channels": config.num_channels,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_act": config.hidden_act.hf_name(),
        "layer_norm_eps": config.layer_norm_eps,
    })
}

/// A text config as transformers writes it.
pub(super) fn text_to_json(config: &TextTowerConfig) -> Value {
    let kind = match config.family {
        TowerFamily::Clip => "clip_text_model",
        TowerFamily::Siglip => "siglip_text_model",
    };
    let eos = match config.eos_rule {
        EosRule::HighestId => 2,
        EosRule::FirstOf(id) => id,
    };
    json!({
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_act": config.hidden_act.hf_name(),
        "layer_norm_eps": config.layer_norm_eps,
        "eos_token_id": eos,
    })
}
