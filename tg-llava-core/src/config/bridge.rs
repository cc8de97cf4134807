use super::tower::check_heads;
use crate::error::{Error, Result};

/// Sizes of the feature guide (`mm_cross_attn`, the paper's text-guided feature optimisation module).
///
/// The word embeddings and text branch that the reference's BERT carries along are never computed; their
/// sizes are kept since the reference's files hold them.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureGuideConfig {
    /// Learned latents, one for each vision token.
    pub num_query_tokens: usize,
    /// Width of the latents, which is the vision width.
    pub hidden_size: usize,
    /// Width of the text that the latents attend to, after `resize_linear`.
    pub encoder_width: usize,
    /// Width of the text tower.
    pub text_hidden_size: usize,
    /// Layers of the Q-Former.
    pub num_hidden_layers: usize,
    /// Every n-th layer has cross-attention, from the first.
    pub cross_attention_freq: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// Dropout in training, on hidden states and attention weights alike.
    pub dropout: f64,
    /// Rows of BERT's word embeddings, which are never used.
    pub unused_vocab_size: usize,
    /// Rows of BERT's position embeddings, which are never used.
    pub unused_max_positions: usize,
}

/// Sizes of the detail perceiver (`mm_patch_encoder`, the paper's text-guided detail perceiver).
#[derive(Debug, Clone, PartialEq)]
pub struct DetailPerceiverConfig {
    /// Learned latents, which become the detail tokens of a picture.
    pub num_latents: usize,
    /// Positions of the four crops' features together.
    pub num_positions: usize,
    /// Width of the latents, which is the vision width.
    pub hidden_size: usize,
    /// Width of the text tower.
    pub text_hidden_size: usize,
    /// Width of the decoder.
    pub output_size: usize,
    /// Layers; the first reads the text, the others the crops.
    pub depth: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the gated feed-forward.
    pub intermediate_size: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
}

/// How vision features become decoder inputs (`mm_projector_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectorConfig {
    /// As they are; needs equal widths.
    Identity,
    /// One linear layer.
    Linear,
    /// This many linear layers with GELU between them.
    MlpGelu(usize),
}

impl ProjectorConfig {
    /// Reads `mm_projector_type`.
    ///
    /// # Errors
    /// [`Error::Config`] where the type is unknown.
    pub fn from_hf(name: &str) -> Result<Self> {
        let depth = name.strip_prefix("mlp").and_then(|rest| rest.strip_suffix("x_gelu"));
        match (name, depth.and_then(|d| d.parse().ok())) {
            ("identity", _) => Ok(Self::Identity),
            ("linear", _) => Ok(Self::Linear),
            (_, Some(depth)) if depth > 0 => Ok(Self::MlpGelu(depth)),
            _ => Err(Error::Config(format!(
                "mm_projector_type = {name:?} is not supported; known: linear, mlpNx_gelu (N >= 1), identity"
            ))),
        }
    }

    /// The name in config.json.
    pub fn hf_name(self) -> String {
        match self {
            Self::Identity => "identity".into(),
            Self::Linear => "linear".into(),
            Self::MlpGelu(depth) => format!("mlp{depth}x_gelu"),
        }
    }
}

impl FeatureGuideConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        if self.num_query_tokens == 0 || self.num_hidden_layers == 0 || self.cross_attention_freq == 0 {
            return Err(Error::Config(format!(
                "tg_llava: num_query_tokens = {}, qformer.num_hidden_layers = {}, qformer.cross_attention_freq = {}; all must be at least 1",
                self.num_query_tokens, self.num_hidden_layers, self.cross_attention_freq
            )));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::Config(format!("dropout = {} is not in [0, 1)", self.dropout)));
        }
        check_heads("tg_llava.qformer", self.hidden_size, self.num_attention_heads)
    }
}

impl DetailPerceiverConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        if self.num_latents == 0 || self.depth == 0 || self.head_dim == 0 {
            return Err(Error::Config(format!(
                "tg_llava.perceiver: n_latents = {}, depth = {}, head_dim = {}; all must be at least 1",
                self.num_latents, self.depth, self.head_dim
            )));
        }
        if self.num_key_value_heads == 0 || !self.num_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(Error::Config(format!(
                "tg_llava.perceiver: num_heads = {} is not a multiple of num_key_value_heads = {}",
                self.num_heads, self.num_key_value_heads
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projector_names_round_trip() {
        for name in ["identity", "linear", "mlp1x_gelu", "mlp2x_gelu", "mlp12x_gelu"] {
            assert_eq!(ProjectorConfig::from_hf(name).unwrap().hf_name(), name);
        }
        for name in ["mlp0x_gelu", "mlpx_gelu", "resampler", ""] {
            assert!(ProjectorConfig::from_hf(name).is_err(), "{name}");
        }
    }
}
