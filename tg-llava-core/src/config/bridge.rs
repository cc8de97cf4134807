use super::bounds::{
    EPSILON, HEADS, LAYERS, PATCHES, POSITIONS, VOCABULARY, WIDTH, check, check_heads, check_sizes, multiple,
    named,
};
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
            (_, Some(depth)) if LAYERS.contains(&depth) => Ok(Self::MlpGelu(depth)),
            _ => Err(Error::Config(format!(
                "mm_projector_type = {name:?} is not supported; known: linear, mlpNx_gelu (N from 1 to {}), identity",
                LAYERS.end()
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
    /// Checks that the sizes are in their bounds and fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        check("tg_llava.num_query_tokens", self.num_query_tokens, PATCHES)?;
        let part = "tg_llava.qformer";
        check_sizes(
            part,
            [
                ("encoder_width", self.encoder_width, WIDTH),
                ("num_hidden_layers", self.num_hidden_layers, LAYERS),
                ("cross_attention_freq", self.cross_attention_freq, LAYERS),
                ("intermediate_size", self.intermediate_size, WIDTH),
                ("vocab_size", self.unused_vocab_size, VOCABULARY),
                ("max_position_embeddings", self.unused_max_positions, POSITIONS),
            ],
        )?;
        check(&named(part, "layer_norm_eps"), self.layer_norm_eps, EPSILON)?;
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::Config(format!("dropout = {} is not in [0, 1)", self.dropout)));
        }
        check_heads(part, self.hidden_size, self.num_attention_heads)
    }
}

impl DetailPerceiverConfig {
    /// Checks that the sizes are in their bounds and fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        let part = "tg_llava.perceiver";
        check_sizes(
            part,
            [
                ("n_latents", self.num_latents, PATCHES),
                ("hidden_size", self.hidden_size, WIDTH),
                ("depth", self.depth, LAYERS),
                ("num_heads", self.num_heads, HEADS),
                ("num_key_value_heads", self.num_key_value_heads, HEADS),
                ("head_dim", self.head_dim, WIDTH),
                ("intermediate_size", self.intermediate_size, WIDTH),
            ],
        )?;
        check(&named(part, "num_heads * head_dim"), self.num_heads * self.head_dim, WIDTH)?;
        check(&named(part, "rms_norm_eps"), self.rms_norm_eps, EPSILON)?;
        multiple(part, ("num_heads", self.num_heads), ("num_key_value_heads", self.num_key_value_heads))
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
        for name in ["mlp0x_gelu", "mlpx_gelu", "mlp10000000x_gelu", "resampler", ""] {
            assert!(ProjectorConfig::from_hf(name).is_err(), "{name}");
        }
    }
}
