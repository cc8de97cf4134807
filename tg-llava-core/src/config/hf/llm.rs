use std::path::Path;

use serde_json::Value;

use super::raw::RawConfig;
use crate::config::{LlmConfig, LlmFamily};
use crate::error::{Error, Result};
use crate::nn::RopeScaling;

/// The decoder's sizes in config.json, with transformers' defaults for absent keys.
pub(super) fn from_raw(raw: &RawConfig, path: &Path) -> Result<LlmConfig> {
    let fail = |reason: String| Error::Config(format!("{}: {reason}", path.display()));
    let need = |key: &str, value: Option<usize>| value.ok_or_else(|| fail(format!("key {key:?} is missing")));
    let family = match raw.model_type.as_deref() {
        Some("llama" | "llava" | "llava_llama" | "llava_llama_text_learnable_query" | "mistral") => {
            LlmFamily::Llama
        }
        Some("qwen2" | "llava_qwen" | "llava_qwen_text_learnable_query") => LlmFamily::Qwen2,
        other => {
            return Err(fail(format!(
                "model_type = {}; known: llama, qwen2, llava_llama, llava_llama_text_learnable_query, llava_qwen_text_learnable_query",
                other.map_or("(absent)".into(), |name| format!("{name:?}"))
            )));
        }
    };
    if let Some(act) = raw.hidden_act.as_deref().filter(|act| *act != "silu") {
        return Err(fail(format!("hidden_act = {act:?}; Llama and Qwen2 decoders use \"silu\"")));
    }
    if raw.use_sliding_window == Some(true) {
        return Err(fail("use_sliding_window = true is not supported; set it to false".into()));
    }
    let hidden_size = need("hidden_size", raw.hidden_size)?;
    let num_attention_heads = need("num_attention_heads", raw.num_attention_heads)?;
    if num_attention_heads == 0 {
        return Err(fail("num_attention_heads = 0; it must be at least 1".into()));
    }
    let parameters = raw.rope_parameters.as_ref();
    let theta = raw.rope_theta.or_else(|| parameters?.get("rope_theta")?.as_f64());
    let qwen2 = family == LlmFamily::Qwen2;
    Ok(LlmConfig {
        family,
        vocab_size: need("vocab_size", raw.vocab_size)?,
        hidden_size,
        intermediate_size: need("intermediate_size", raw.intermediate_size)?,
        num_hidden_layers: need("num_hidden_layers", raw.num_hidden_layers)?,
        num_attention_heads,
        num_key_value_heads: raw.num_key_value_heads.unwrap_or(num_attention_heads),
        head_dim: raw.head_dim.unwrap_or(hidden_size / num_attention_heads),
        max_position_embeddings: raw.max_position_embeddings.unwrap_or(if qwen2 { 32_768 } else { 2048 }),
        rms_norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
        rope_theta: theta.unwrap_or(10_000.0),
        rope_scaling: match raw.rope_scaling.as_ref().or(parameters) {
            Some(value) => rope_scaling(value, raw.max_position_embeddings).map_err(fail)?,
            None => None,
        },
        attention_bias: raw.attention_bias.unwrap_or(false),
        tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
        initializer_range: raw.initializer_range.unwrap_or(0.02),
        bos_token_id: token_ids(raw.bos_token_id.as_ref()).first().copied(),
        eos_token_ids: token_ids(raw.eos_token_id.as_ref()),
        generation_eos_token_ids: Vec::new(),
        pad_token_id: token_ids(raw.pad_token_id.as_ref()).first().copied(),
        vocab_pieces: 1,
    })
}

/// A token id or a list of them.
pub(super) fn token_ids(value: Option<&Value>) -> Vec<i64> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_i64).collect(),
        Some(other) => other.as_i64().into_iter().collect(),
        None => Vec::new(),
    }
}

/// `rope_scaling` in the old (`type`) and the new (`rope_type`) spelling.
fn rope_scaling(value: &Value, max_positions: Option<usize>) -> Result<Option<RopeScaling>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let kind = value.get("rope_type").or_else(|| value.get("type")).and_then(Value::as_str);
    let number = |key: &str| {
        let found = value.get(key).and_then(Value::as_f64).filter(|x| *x > 0.0);
        found.ok_or_else(|| format!("rope_scaling.{key} must be a positive number in {value}"))
    };
    match kind {
        None | Some("default") => Ok(None),
        Some("linear") => Ok(Some(RopeScaling::Linear { factor: number("factor")? })),
        Some("dynamic") => Ok(Some(RopeScaling::Dynamic { factor: number("factor")? })),
        Some("llama3") => Ok(Some(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position_embeddings: value
                .get("original_max_position_embeddings")
                .and_then(Value::as_u64)
                .map(|n| n as usize)
                .or(max_positions)
                .ok_or("rope_scaling.original_max_position_embeddings is missing")?,
        })),
        Some(other) => Err(format!(
            "rope_scaling kind {other:?} is not supported; known: linear, dynamic, llama3 (default = none)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scaling_kinds_in_both_spellings() {
        let read = |value: Value| rope_scaling(&value, Some(64));
        assert_eq!(read(Value::Null).unwrap(), None);
        let linear = Some(RopeScaling::Linear { factor: 2.0 });
        assert_eq!(read(json!({"type": "linear", "factor": 2.0})).unwrap(), linear);
        assert_eq!(read(json!({"rope_type": "linear", "factor": 2})).unwrap(), linear);
        let llama3 =
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0});
        assert!(matches!(
            read(llama3).unwrap(),
            Some(RopeScaling::Llama3 { original_max_position_embeddings: 64, .. })
        ));
        assert!(read(json!({"type": "yarn", "factor": 2})).unwrap_err().contains("yarn"));
        assert!(read(json!({"type": "linear"})).unwrap_err().contains("factor"));
    }
}
