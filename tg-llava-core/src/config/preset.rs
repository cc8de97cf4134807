//! Complete configurations by name.

use super::hf::BridgeWidths;
use super::hf::{default_detail, default_guide};
use super::{
    EosRule, GuidePadding, LlmConfig, LlmFamily, ModelConfig, MultimodalConfig, PaddingSide, ProjectorConfig,
    SelectFeature, TextTowerConfig, TowerFamily, TowerLocation, VisionTowerConfig,
};
use crate::conversation::GuideTurn;
use crate::nn::Activation;
use crate::preprocess::{AspectRatio, DetailSource};

/// Names that [`llm_preset`] knows.
pub const LLM_PRESETS: [&str; 6] =
    ["vicuna-7b", "vicuna-13b", "llama3-8b", "qwen2-7b", "qwen2-0.5b", "smollm2-135m"];

/// Names that [`tower_preset`] knows; the hub names of the same models are known too.
pub const TOWER_PRESETS: [&str; 2] = ["clip-l-336", "siglip-so400m-384"];

/// Sizes of a published decoder, or `None` for an unknown name.
pub fn llm_preset(name: &str) -> Option<LlmConfig> {
    let base = LlmConfig {
        family: LlmFamily::Llama,
        vocab_size: 32_000,
        hidden_size: 4096,
        intermediate_size: 11_008,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 32,
        head_dim: 128,
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        attention_bias: false,
        tie_word_embeddings: false,
        initializer_range: 0.02,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
        generation_eos_token_ids: Vec::new(),
        pad_token_id: Some(0),
        vocab_pieces: 1,
    };
    let qwen2 = LlmConfig {
        family: LlmFamily::Qwen2,
        max_position_embeddings: 32_768,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        bos_token_id: Some(151_643),
        eos_token_ids: vec![151_645, 151_643],
        pad_token_id: Some(151_643),
        ..base.clone()
    };
    Some(match name {
        "vicuna-7b" => base,
        "vicuna-13b" => LlmConfig {
            hidden_size: 5120,
            intermediate_size: 13_824,
            num_hidden_layers: 40,
            num_attention_heads: 40,
            num_key_value_heads: 40,
            ..base
        },
        "llama3-8b" => LlmConfig {
            vocab_size: 128_256,
            intermediate_size: 14_336,
            num_key_value_heads: 8,
            max_position_embeddings: 8192,
            rope_theta: 5e5,
            bos_token_id: Some(128_000),
            eos_token_ids: vec![128_001, 128_009],
            pad_token_id: None,
            ..base
        },
        "qwen2-7b" => LlmConfig {
            vocab_size: 152_064,
            hidden_size: 3584,
            intermediate_size: 18_944,
            num_hidden_layers: 28,
            num_attention_heads: 28,
            num_key_value_heads: 4,
            ..qwen2
        },
        "qwen2-0.5b" => LlmConfig {
            vocab_size: 151_936,
            hidden_size: 896,
            intermediate_size: 4864,
            num_hidden_layers: 24,
            num_attention_heads: 14,
            num_key_value_heads: 2,
            head_dim: 64,
            tie_word_embeddings: true,
            ..qwen2
        },
        "smollm2-135m" => LlmConfig {
            vocab_size: 49_152,
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            max_position_embeddings: 8192,
            rope_theta: 1e5,
            tie_word_embeddings: true,
            pad_token_id: Some(2),
            ..base
        },
        _ => return None,
    })
}

/// Sizes of published towers by preset or hub name, or `None` for an unknown one.
pub fn tower_preset(name: &str) -> Option<(VisionTowerConfig, TextTowerConfig)> {
    match name {
        "clip-l-336" | "openai/clip-vit-large-patch14-336" => Some((
            VisionTowerConfig {
                family: TowerFamily::Clip,
                hidden_size: 1024,
                intermediate_size: 4096,
                num_hidden_layers: 24,
                num_attention_heads: 16,
                num_channels: 3,
                image_size: 336,
                patch_size: 14,
                hidden_act: Activation::QuickGelu,
                layer_norm_eps: 1e-5,
            },
            TextTowerConfig {
                family: TowerFamily::Clip,
                vocab_size: 49_408,
                hidden_size: 768,
                intermediate_size: 3072,
                num_hidden_layers: 12,
                num_attention_heads: 12,
                max_position_embeddings: 77,
                hidden_act: Activation::QuickGelu,
                layer_norm_eps: 1e-5,
                eos_rule: EosRule::HighestId,
            },
        )),
        "siglip-so400m-384" | "google/siglip-so400m-patch14-384" => Some((
            VisionTowerConfig {
                family: TowerFamily::Siglip,
                hidden_size: 1152,
                intermediate_size: 4304,
                num_hidden_layers: 27,
                num_attention_heads: 16,
                num_channels: 3,
                image_size: 384,
                patch_size: 14,
                hidden_act: Activation::GeluTanh,
                layer_norm_eps: 1e-6,
            },
            TextTowerConfig {
                family: TowerFamily::Siglip,
                vocab_size: 32_000,
                hidden_size: 1152,
                intermediate_size: 4304,
                num_hidden_layers: 27,
                num_attention_heads: 16,
                max_position_embeddings: 64,
                hidden_act: Activation::GeluTanh,
                layer_norm_eps: 1e-6,
                eos_rule: EosRule::FirstOf(1),
            },
        )),
        _ => None,
    }
}

/// Towers, bridges and switches for a decoder of width `llm_hidden_size`, as the paper has them, with the
/// bridges' sizes following the towers.
pub fn multimodal(
    vision: VisionTowerConfig,
    text: TextTowerConfig,
    towers: &str,
    llm_hidden_size: usize,
) -> MultimodalConfig {
    let mut config = MultimodalConfig {
        vision,
        text: None,
        towers: TowerLocation { vision: towers.into(), text: towers.into() },
        guide: None,
        detail: None,
        projector: ProjectorConfig::MlpGelu(2),
        select_layer: -2,
        select_feature: SelectFeature::Patch,
        aspect_ratio: AspectRatio::Pad,
        guide_turn: GuideTurn::Last,
        guide_padding: GuidePadding::Masked,
        detail_source: DetailSource::Upsampled,
        use_im_start_end: false,
    };
    let widths = BridgeWidths {
        vision_tokens: config.num_vision_tokens(),
        vision: config.vision.hidden_size,
        text: text.hidden_size,
        llm: llm_hidden_size,
    };
    config.guide = Some(default_guide(widths));
    config.detail = Some(default_detail(widths));
    config.text = Some(text);
    config
}

/// A whole model small enough for tests: two blocks everywhere, pictures of 28 pixels.
pub fn tiny(vocab_size: usize) -> ModelConfig {
    let smollm2 = llm_preset("smollm2-135m").expect("a known preset");
    let llm = LlmConfig {
        vocab_size,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 256,
        ..smollm2
    };
    let (vision, text) = tower_preset("clip-l-336").expect("a known preset");
    let vision = VisionTowerConfig {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        image_size: 28,
        ..vision
    };
    let text = TextTowerConfig {
        vocab_size: 600,
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        ..text
    };
    let mut mm = multimodal(vision, text, "clip-tower", llm.hidden_size);
    if let Some(guide) = &mut mm.guide {
        guide.num_attention_heads = 4;
        guide.unused_vocab_size = 8;
        guide.unused_max_positions = 8;
    }
    if let Some(detail) = &mut mm.detail {
        detail.num_latents = 4;
        detail.num_heads = 4;
        detail.num_key_value_heads = 2;
        detail.head_dim = 8;
    }
    ModelConfig {
        llm,
        multimodal: Some(mm),
        conversation: Some("v1".into()),
        max_length: 256,
        padding_side: PaddingSide::Right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_complete_and_valid() {
        for llm_name in LLM_PRESETS {
            for towers in TOWER_PRESETS {
                let llm = llm_preset(llm_name).unwrap();
                let (vision, text) = tower_preset(towers).unwrap();
                let config = ModelConfig {
                    multimodal: Some(multimodal(vision, text, towers, llm.hidden_size)),
                    llm,
                    conversation: None,
                    max_length: 2048,
                    padding_side: PaddingSide::Right,
                };
                config.validate().unwrap_or_else(|e| panic!("{llm_name} + {towers}: {e}"));
            }
        }
        tiny(100).validate().unwrap();
    }
}
