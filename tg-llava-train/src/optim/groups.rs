//! Which parameters decay.

use serde::{Deserialize, Serialize};
use tg_llava_core::config::LlmFamily;

/// Which parameters the weight decay leaves alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayRule {
    /// Biases and all norms: what is meant.
    #[default]
    ExceptNorms,
    /// What the reference's trainer does with transformers 4.37.2: it knows LayerNorm and Llama's RMS norm, but not
    /// the perceiver's and Qwen2's, which therefore decay.
    Reference,
}

/// How one parameter is updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterSettings {
    /// Learning rate of this step.
    pub lr: f64,
    /// Weight decay, relative to the learning rate (AdamW).
    pub weight_decay: f64,
}

/// Whether the parameter with the reference's key `key` decays.
pub fn decays(key: &str, rule: DecayRule, family: LlmFamily) -> bool {
    if key.ends_with(".bias") {
        return false;
    }
    let name = key.strip_suffix(".weight").unwrap_or(key);
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_norm = last.contains("norm") || last == "LayerNorm" || last.starts_with("layer_norm");
    if !is_norm {
        return true;
    }
    match rule {
        DecayRule::ExceptNorms => false,
        DecayRule::Reference => {
            let perceiver = key.starts_with("model.mm_patch_encoder.perceiver.");
            let decoder = key.starts_with("model.layers.") || key == "model.norm.weight";
            perceiver || (decoder && family == LlmFamily::Qwen2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_never_decay_and_norms_by_the_rule() {
        let check = |key: &str, rule, family| decays(key, rule, family);
        let (llama, qwen2) = (LlmFamily::Llama, LlmFamily::Qwen2);
        assert!(!check("model.mm_projector.0.bias", DecayRule::Reference, qwen2));
        assert!(check("model.mm_cross_attn.query_tokens", DecayRule::ExceptNorms, llama));
        assert!(check("model.layers.0.self_attn.q_proj.weight", DecayRule::ExceptNorms, llama));
        let norm = "model.layers.0.input_layernorm.weight";
        assert!(!check(norm, DecayRule::Reference, llama));
        assert!(check(norm, DecayRule::Reference, qwen2));
        assert!(!check(norm, DecayRule::ExceptNorms, qwen2));
        let perceiver = "model.mm_patch_encoder.perceiver.layers.0.input_latents_norm.weight";
        assert!(check(perceiver, DecayRule::Reference, llama));
        assert!(!check(perceiver, DecayRule::ExceptNorms, llama));
        let bert = "model.mm_cross_attn.Qformer.bert.embeddings.LayerNorm.weight";
        assert!(!check(bert, DecayRule::Reference, llama));
    }
}
