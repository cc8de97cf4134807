use std::path::Path;

use serde_json::{Map, Value, json};

use super::{bridges, raw::RawTgLlava, tower};
use crate::config::{
    GuidePadding, LlmConfig, LlmFamily, ModelConfig, MultimodalConfig, PaddingSide, SelectFeature,
};
use crate::conversation::GuideTurn;
use crate::error::{Error, Result};
use crate::nn::RopeScaling;
use crate::preprocess::DetailSource;

/// Writes `config.json` into `dir`: the keys of the checkpoint it came from (`base`) with ours over them.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_model_config(config: &ModelConfig, base: Option<Value>, dir: &Path) -> Result<()> {
    let path = dir.join("config.json");
    let value = model_config_json(config, base);
    let text = serde_json::to_string_pretty(&value).map_err(|e| Error::json(&path, e))?;
    std::fs::write(&path, text + "\n").map_err(|e| Error::io(&path, e))
}

/// The config.json of `config`, over the keys of `base`.
pub fn model_config_json(config: &ModelConfig, base: Option<Value>) -> Value {
    let mut map = match base {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    llm_keys(&config.llm, config.multimodal.is_some(), &mut map);
    map.insert("tokenizer_model_max_length".into(), json!(config.max_length));
    let side = match config.padding_side {
        PaddingSide::Right => "right",
        PaddingSide::Left => "left",
    };
    map.insert("tokenizer_padding_side".into(), json!(side));
    match &config.multimodal {
        Some(mm) => multimodal_keys(mm, config.conversation.clone(), &mut map),
        None => {
            if let Some(name) = &config.conversation {
                map.insert("tg_llava".into(), json!({ "conversation": name }));
            }
        }
    }
    Value::Object(map)
}

fn llm_keys(llm: &LlmConfig, multimodal: bool, map: &mut Map<String, Value>) {
    let (model_type, class) = match (llm.family, multimodal) {
        (LlmFamily::Llama, false) => ("llama", "LlamaForCausalLM"),
        (LlmFamily::Qwen2, false) => ("qwen2", "Qwen2ForCausalLM"),
        (LlmFamily::Llama, true) => {
            ("llava_llama_text_learnable_query", "LlavaLlamaTextLearnableQueryForCausalLM")
        }
        (LlmFamily::Qwen2, true) => {
            ("llava_qwen_text_learnable_query", "LlavaQwenTextLearnableQueryForCausalLM")
        }
    };
    let mut set = |key: &str, value: Value| map.insert(key.into(), value);
    set("model_type", json!(model_type));
    set("architectures", json!([class]));
    set("vocab_size", json!(llm.vocab_size));
    set("hidden_size", json!(llm.hidden_size));
    set("intermediate_size", json!(llm.intermediate_size));
    set("num_hidden_layers", json!(llm.num_hidden_layers));
    set("num_attention_heads", json!(llm.num_attention_heads));
    set("num_key_value_heads", json!(llm.num_key_value_heads));
    if llm.head_dim * llm.num_attention_heads != llm.hidden_size {
        set("head_dim", json!(llm.head_dim));
    }
    set("max_position_embeddings", json!(llm.max_position_embeddings));
    set("rms_norm_eps", json!(llm.rms_norm_eps));
    set("rope_theta", json!(llm.rope_theta));
    set("hidden_act", json!("silu"));
    set("tie_word_embeddings", json!(llm.tie_word_embeddings));
    set("initializer_range", json!(llm.initializer_range));
    if llm.family == LlmFamily::Llama {
        set("attention_bias", json!(llm.attention_bias));
    }
    if let Some(scaling) = llm.rope_scaling {
        set("rope_scaling", rope_scaling(scaling));
    }
    set("bos_token_id", json!(llm.bos_token_id));
    set(
        "eos_token_id",
        match llm.eos_token_ids.as_slice() {
            [one] => json!(one),
            many => json!(many),
        },
    );
    if llm.pad_token_id.is_some() {
        set("pad_token_id", json!(llm.pad_token_id));
    }
}

fn rope_scaling(scaling: RopeScaling) -> Value {
    match scaling {
        RopeScaling::Linear { factor } => json!({"type": "linear", "factor": factor}),
        RopeScaling::Dynamic { factor } => json!({"type": "dynamic", "factor": factor}),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
    }
}

fn multimodal_keys(mm: &MultimodalConfig, conversation: Option<String>, map: &mut Map<String, Value>) {
    let guided = mm.guide.is_some() || mm.detail.is_some();
    let mut set = |key: &str, value: Value| map.insert(key.into(), value);
    set("mm_vision_tower", json!(mm.towers.vision));
    set("mm_text_tower", json!(mm.towers.text));
    set("mm_hidden_size", json!(mm.vision.hidden_size));
    if let Some(text) = &mm.text {
        set("mm_text_hidden_size", json!(text.hidden_size));
    }
    set("mm_projector_type", json!(mm.projector.hf_name()));
    set("mm_vision_select_layer", json!(mm.select_layer));
    let feature = match mm.select_feature {
        SelectFeature::Patch => "patch",
        SelectFeature::ClsPatch => "cls_patch",
    };
    set("mm_vision_select_feature", json!(feature));
    set("image_aspect_ratio", json!(mm.aspect_ratio.hf_name()));
    set("mm_use_im_start_end", json!(mm.use_im_start_end));
    set("use_mm_proj", json!(true));
    let block = RawTgLlava {
        num_query_tokens: mm.guide.as_ref().map(|g| g.num_query_tokens),
        num_patch_positions: mm.detail.as_ref().map(|d| d.num_positions),
        qformer: mm.guide.as_ref().map(bridges::guide_to_raw),
        perceiver: mm.detail.as_ref().map(bridges::detail_to_raw),
        conversation,
        feature_guide: mm.guide.is_none().then_some(false),
        detail_perceiver: mm.detail.is_none().then_some(false),
        guide_turn: Some(
            match mm.guide_turn {
                GuideTurn::Last => "last",
                GuideTurn::First => "first",
                GuideTurn::Joined => "joined",
            }
            .into(),
        ),
        guide_padding: Some(
            match mm.guide_padding {
                GuidePadding::Masked => "masked",
                GuidePadding::Visible => "visible",
            }
            .into(),
        ),
        detail_source: guided.then(|| {
            match mm.detail_source {
                DetailSource::Upsampled => "upsampled",
                DetailSource::Native => "native",
            }
            .into()
        }),
        vision_config: Some(tower::vision_to_json(&mm.vision)),
        text_config: mm.text.as_ref().map(tower::text_to_json),
    };
    set("tg_llava", json!(block));
}
