//! Names and sizes of the decoders that GGUF files hold.

use std::path::Path;

use super::header::{Metadata, TensorInfo, Value};
use crate::config::{LlmConfig, LlmFamily};
use crate::error::{Error, Result, shortened};
use crate::nn::RopeScaling;

/// Beginnings of names.
const OUTSIDE: [(&str, &str); 3] =
    [("token_embd.", "model.embed_tokens."), ("output_norm.", "model.norm."), ("output.", "lm_head.")];

/// The same inside a block, behind `blk.N.`.
const INSIDE: [(&str, &str); 9] = [
    ("attn_norm.", "input_layernorm."),
    ("ffn_norm.", "post_attention_layernorm."),
    ("attn_q.", "self_attn.q_proj."),
    ("attn_k.", "self_attn.k_proj."),
    ("attn_v.", "self_attn.v_proj."),
    ("attn_output.", "self_attn.o_proj."),
    ("ffn_gate.", "mlp.gate_proj."),
    ("ffn_up.", "mlp.up_proj."),
    ("ffn_down.", "mlp.down_proj."),
];

fn renamed(name: &str, rules: &[(&str, &str)]) -> Option<String> {
    rules.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)))
}

/// The reference's key of the tensor `name`; a name that no rule knows stays, and is an unknown key.
pub(super) fn reference_key(name: &str) -> String {
    let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let key = match block {
        Some((number, rest)) => renamed(rest, &INSIDE).map(|rest| format!("model.layers.{number}.{rest}")),
        None => renamed(name, &OUTSIDE),
    };
    key.unwrap_or_else(|| name.to_owned())
}

/// Whether the file has row `(head, i, half)` of the tensor where Hugging Face has `(head, half, i)`: llama.cpp rotates neighbouring
/// pairs in the architecture `llama`.
pub(super) fn is_interleaved(name: &str, family: LlmFamily) -> bool {
    let inside = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    family == LlmFamily::Llama
        && inside.is_some_and(|(_, rest)| rest.starts_with("attn_q.") || rest.starts_with("attn_k."))
}

/// The decoder's sizes by the metadata, with llama.cpp's defaults for absent keys.
pub(super) fn config(path: &Path, metadata: &Metadata, tensors: &[TensorInfo]) -> Result<LlmConfig> {
    let fail = |reason: String| Error::Config(shortened(&format!("{}: {reason}", path.display())));
    let arch = metadata.text("general.architecture");
    let family = match arch {
        Some("llama") => LlmFamily::Llama,
        Some("qwen2") => LlmFamily::Qwen2,
        other => {
            let found = other.map_or("(absent)".into(), |name| format!("{name:?}"));
            return Err(fail(format!("general.architecture = {found}; known: llama, qwen2")));
        }
    };
    if metadata.integer("split.count").is_some_and(|count| count > 1) {
        return Err(fail(
            "one of several pieces of a model; put them together with llama-gguf-split --merge".into(),
        ));
    }
    let full = |key: &str| format!("{}.{key}", arch.unwrap_or_default());
    let size = |key: &str| -> Result<Option<usize>> {
        let key = full(key);
        match (metadata.0.get(&key), metadata.integer(&key).and_then(|value| usize::try_from(value).ok())) {
            (None, _) => Ok(None),
            (_, Some(value)) => Ok(Some(value)),
            (Some(other), None) => Err(fail(format!("{key} = {other:?}; it must be one positive integer"))),
        }
    };
    let need = |key: &str| size(key)?.ok_or_else(|| fail(format!("key {:?} is missing", full(key))));
    let has = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
    let vocabulary = tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let hidden_size = need("embedding_length")?;
    let num_attention_heads = need("attention.head_count")?;
    if num_attention_heads == 0 {
        return Err(fail(format!("{} = 0; it must be at least 1", full("attention.head_count"))));
    }
    let head_dim = size("attention.key_length")?.unwrap_or(hidden_size / num_attention_heads);
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = size(key)?.filter(|other| *other != head_dim) {
            return Err(fail(format!("{} = {other}; heads are {head_dim} wide", full(key))));
        }
    }
    let id = |key: &str| metadata.integer(key).and_then(|id| i64::try_from(id).ok());
    let config = LlmConfig {
        family,
        vocab_size: match vocabulary {
            Some(tensor) => tensor.shape[0],
            None => return Err(fail("there is no tensor token_embd.weight".into())),
        },
        hidden_size,
        intermediate_size: need("feed_forward_length")?,
        num_hidden_layers: need("block_count")?,
        num_attention_heads,
        num_key_value_heads: size("attention.head_count_kv")?.unwrap_or(num_attention_heads),
        head_dim,
        max_position_embeddings: need("context_length")?,
        rms_norm_eps: match metadata.float(&full("attention.layer_norm_rms_epsilon")) {
            Some(value) => value,
            None => {
                return Err(fail(format!("key {:?} is missing", full("attention.layer_norm_rms_epsilon"))));
            }
        },
        rope_theta: metadata.float(&full("rope.freq_base")).unwrap_or(10_000.0),
        rope_scaling: scaling(metadata, full).map_err(fail)?,
        attention_bias: family == LlmFamily::Llama && has("blk.0.attn_q.bias"),
        tie_word_embeddings: !has("output.weight"),
        initializer_range: 0.02,
        bos_token_id: id("tokenizer.ggml.bos_token_id"),
        eos_token_ids: id("tokenizer.ggml.eos_token_id").into_iter().collect(),
        generation_eos_token_ids: Vec::new(),
        pad_token_id: id("tokenizer.ggml.padding_token_id"),
        vocab_pieces: 1,
    };
    config.validate().map_err(|error| match error {
        Error::Config(reason) => fail(reason),
        other => other,
    })?;
    Ok(config)
}

fn scaling(metadata: &Metadata, full: impl Fn(&str) -> String) -> Result<Option<RopeScaling>, String> {
    let kind = metadata.0.get(&full("rope.scaling.type"));
    let factor = metadata.float(&full("rope.scaling.factor")).or(metadata.float(&full("rope.scale_linear")));
    match kind {
        Some(Value::Text(kind)) if kind == "none" => Ok(None),
        Some(Value::Text(kind)) if kind == "linear" => match factor {
            Some(factor) => Ok(Some(RopeScaling::Linear { factor })),
            None => Err(format!("key {:?} is missing", full("rope.scaling.factor"))),
        },
        None => Ok(factor.filter(|factor| *factor != 1.0).map(|factor| RopeScaling::Linear { factor })),
        Some(other) => Err(format!("{} = {other:?}; known: none, linear", full("rope.scaling.type"))),
    }
}

/// What the two decoders differ in though the shapes of their weights may be alike: key, the file's value and config.json's.
pub(super) fn difference(file: &LlmConfig, config: &LlmConfig) -> Option<(&'static str, String, String)> {
    let linear = |llm: &LlmConfig| match llm.rope_scaling {
        Some(RopeScaling::Linear { factor }) => factor as f32,
        _ => 1.0,
    };
    // The file has f32 where config.json has more digits.
    let numbers = |llm: &LlmConfig| {
        [
            ("num_hidden_layers", llm.num_hidden_layers as f32),
            ("hidden_size", llm.hidden_size as f32),
            ("intermediate_size", llm.intermediate_size as f32),
            ("num_attention_heads", llm.num_attention_heads as f32),
            ("num_key_value_heads", llm.num_key_value_heads as f32),
            ("head_dim", llm.head_dim as f32),
            ("vocab_size", llm.vocab_size as f32),
            ("rms_norm_eps", llm.rms_norm_eps as f32),
            ("rope_theta", llm.rope_theta as f32),
            ("rope_scaling.factor", linear(llm)),
        ]
    };
    if file.family != config.family {
        return Some(("model_type", format!("{:?}", file.family), format!("{:?}", config.family)));
    }
    let mut pairs = numbers(file).into_iter().zip(numbers(config));
    let (found, expected) = pairs.find(|(found, expected)| found.1 != expected.1)?;
    Some((found.0, found.1.to_string(), expected.1.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_the_references_keys() {
        for (name, key) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("blk.11.attn_output.weight", "model.layers.11.self_attn.o_proj.weight"),
            ("blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"),
            ("blk.0.attn_q_norm.weight", "blk.0.attn_q_norm.weight"),
            ("something", "something"),
        ] {
            assert_eq!(reference_key(name), key);
        }
        assert!(is_interleaved("blk.3.attn_q.weight", LlmFamily::Llama));
        assert!(!is_interleaved("blk.3.attn_q.weight", LlmFamily::Qwen2));
        assert!(!is_interleaved("blk.3.attn_v.weight", LlmFamily::Llama));
        assert!(!is_interleaved("blk.3.attn_output.weight", LlmFamily::Llama));
    }
}
