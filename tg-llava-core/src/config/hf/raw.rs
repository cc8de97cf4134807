//! The keys of config.json that we read, as they stand there.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A checkpoint's config.json.
#[derive(Debug, Deserialize)]
pub(crate) struct RawConfig {
    pub model_type: Option<String>,
    pub vocab_size: Option<usize>,
    pub hidden_size: Option<usize>,
    pub intermediate_size: Option<usize>,
    pub num_hidden_layers: Option<usize>,
    pub num_attention_heads: Option<usize>,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub max_position_embeddings: Option<usize>,
    pub rms_norm_eps: Option<f64>,
    pub rope_theta: Option<f64>,
    pub rope_scaling: Option<Value>,
    /// Newer transformers keep theta and scaling together here.
    pub rope_parameters: Option<Value>,
    pub attention_bias: Option<bool>,
    pub hidden_act: Option<String>,
    pub tie_word_embeddings: Option<bool>,
    pub initializer_range: Option<f64>,
    pub bos_token_id: Option<Value>,
    pub eos_token_id: Option<Value>,
    pub pad_token_id: Option<Value>,
    pub use_sliding_window: Option<bool>,
    pub tokenizer_model_max_length: Option<usize>,
    pub tokenizer_padding_side: Option<String>,
    pub mm_vision_tower: Option<String>,
    pub mm_text_tower: Option<String>,
    pub mm_projector_type: Option<String>,
    pub mm_vision_select_layer: Option<i64>,
    pub mm_vision_select_feature: Option<String>,
    pub image_aspect_ratio: Option<String>,
    pub mm_use_im_start_end: Option<bool>,
    pub tg_llava: Option<RawTgLlava>,
}

/// Our block in config.json: what the reference hard-codes.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
pub(crate) struct RawTgLlava {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_query_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_patch_positions: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qformer: Option<RawQformer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perceiver: Option<RawPerceiver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// `false` leaves the feature guide out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_guide: Option<bool>,
    /// `false` leaves the detail perceiver out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail_perceiver: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guide_turn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guide_padding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail_source: Option<String>,
    /// Sizes of the vision tower, so that a folder needs no other to be understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision_config: Option<Value>,
    /// Sizes of the text tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_config: Option<Value>,
}

/// Q-Former sizes.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct RawQformer {
    pub hidden_size: usize,
    pub encoder_width: usize,
    pub num_hidden_layers: usize,
    pub cross_attention_freq: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub layer_norm_eps: f64,
    #[serde(default)]
    pub hidden_act: Option<String>,
    #[serde(default)]
    pub dropout: Option<f64>,
}

/// Perceiver sizes.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct RawPerceiver {
    pub hidden_size: usize,
    pub depth: usize,
    pub n_latents: usize,
    pub num_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub intermediate_size: usize,
    pub rms_norm_eps: f64,
    #[serde(default)]
    pub hidden_act: Option<String>,
}
