use super::raw::{RawPerceiver, RawQformer, RawTgLlava};
use crate::config::{DetailPerceiverConfig, FeatureGuideConfig};

/// What bridge sizes follow from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BridgeWidths {
    /// Vision tokens of one picture.
    pub vision_tokens: usize,
    /// Width of the vision tower.
    pub vision: usize,
    /// Width of the text tower.
    pub text: usize,
    /// Width of the decoder.
    pub llm: usize,
}

/// The reference's dropout, which is BERT's default.
const DROPOUT: f64 = 0.1;

/// The guide's sizes: those stated, else the full-size values scaled to the towers.
pub(crate) fn guide(raw: &RawTgLlava, widths: BridgeWidths) -> FeatureGuideConfig {
    let q = raw.qformer.as_ref();
    FeatureGuideConfig {
        num_query_tokens: raw.num_query_tokens.unwrap_or(widths.vision_tokens),
        hidden_size: q.map_or(widths.vision, |q| q.hidden_size),
        encoder_width: q.map_or(widths.vision, |q| q.encoder_width),
        text_hidden_size: widths.text,
        num_hidden_layers: q.map_or(2, |q| q.num_hidden_layers),
        cross_attention_freq: q.map_or(2, |q| q.cross_attention_freq),
        num_attention_heads: q.map_or(16, |q| q.num_attention_heads),
        intermediate_size: q.map_or(4 * widths.vision, |q| q.intermediate_size),
        layer_norm_eps: q.map_or(1e-12, |q| q.layer_norm_eps),
        dropout: q.and_then(|q| q.dropout).unwrap_or(DROPOUT),
        unused_vocab_size: q.map_or(30_522, |q| q.vocab_size),
        unused_max_positions: q.map_or(512, |q| q.max_position_embeddings),
    }
}

/// The perceiver's sizes: those stated, else the full-size values scaled to the towers.
pub(crate) fn detail(raw: &RawTgLlava, widths: BridgeWidths) -> DetailPerceiverConfig {
    let p = raw.perceiver.as_ref();
    DetailPerceiverConfig {
        num_latents: p.map_or(64, |p| p.n_latents),
        num_positions: raw.num_patch_positions.unwrap_or(4 * widths.vision_tokens),
        hidden_size: p.map_or(widths.vision, |p| p.hidden_size),
        text_hidden_size: widths.text,
        output_size: widths.llm,
        depth: p.map_or(2, |p| p.depth),
        num_heads: p.map_or(16, |p| p.num_heads),
        num_key_value_heads: p.map_or(4, |p| p.num_key_value_heads),
        head_dim: p.map_or(96, |p| p.head_dim),
        intermediate_size: p.map_or(4 * widths.vision, |p| p.intermediate_size),
        rms_norm_eps: p.map_or(1e-5, |p| p.rms_norm_eps),
    }
}

/// The guide's sizes as written to config.json.
pub(super) fn guide_to_raw(guide: &FeatureGuideConfig) -> RawQformer {
    RawQformer {
        hidden_size: guide.hidden_size,
        encoder_width: guide.encoder_width,
        num_hidden_layers: guide.num_hidden_layers,
        cross_attention_freq: guide.cross_attention_freq,
        num_attention_heads: guide.num_attention_heads,
        intermediate_size: guide.intermediate_size,
        vocab_size: guide.unused_vocab_size,
        max_position_embeddings: guide.unused_max_positions,
        layer_norm_eps: guide.layer_norm_eps,
        hidden_act: Some("gelu".into()),
        dropout: Some(guide.dropout),
    }
}

/// The perceiver's sizes as written to config.json.
pub(super) fn detail_to_raw(detail: &DetailPerceiverConfig) -> RawPerceiver {
    RawPerceiver {
        hidden_size: detail.hidden_size,
        depth: detail.depth,
        n_latents: detail.num_latents,
        num_heads: detail.num_heads,
        num_key_value_heads: detail.num_key_value_heads,
        head_dim: detail.head_dim,
        intermediate_size: detail.intermediate_size,
        rms_norm_eps: detail.rms_norm_eps,
        hidden_act: Some("silu".into()),
    }
}
