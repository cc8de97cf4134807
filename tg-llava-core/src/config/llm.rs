use std::ops::RangeInclusive;

use super::bounds::{EPSILON, HEADS, LAYERS, POSITIONS, VOCABULARY, WIDTH, check, check_sizes, multiple};
use crate::error::{Error, Result};
use crate::nn::{RopeScaling, RotaryConfig};

/// Decoder families; they differ in biases and in the names of their checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LlmFamily {
    /// Llama 1-3, Vicuna, SmolLM2: no biases unless `attention_bias` says so (then on q, k, v and o).
    Llama,
    /// Qwen2: biases on q, k and v.
    Qwen2,
}

/// Sizes of the decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct LlmConfig {
    /// Which family's checkpoint names and biases.
    pub family: LlmFamily,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; fewer than query heads is grouped-query attention.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Context that the model was trained on, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies for longer contexts.
    pub rope_scaling: Option<RopeScaling>,
    /// Biases on q, k, v and o (Llama family alone).
    pub attention_bias: bool,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
    /// Token that starts a text, where the model has one.
    pub bos_token_id: Option<i64>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<i64>,
    /// Tokens that end an answer by generation_config.json; config.json is not written with them.
    pub generation_eos_token_ids: Vec<i64>,
    /// Token that fills short rows of a batch.
    pub pad_token_id: Option<i64>,
    /// Pieces along the vocabulary that embedding and head are held in, for devices whose largest buffer is
    /// smaller than the whole; 1 otherwise. No part of a checkpoint.
    pub vocab_pieces: usize,
}

impl LlmConfig {
    /// What the rotary embeddings need.
    pub fn rotary(&self) -> RotaryConfig {
        RotaryConfig {
            head_dim: self.head_dim,
            theta: self.rope_theta,
            max_position_embeddings: self.max_position_embeddings,
            scaling: self.rope_scaling,
        }
    }

    /// Tokens of each piece of the vocabulary; the last one may have fewer.
    pub fn piece_sizes(&self) -> Vec<usize> {
        let size = self.vocab_size.div_ceil(self.vocab_pieces.max(1)).max(1);
        let pieces = (0..self.vocab_size).step_by(size);
        pieces.map(|first| size.min(self.vocab_size - first)).collect()
    }

    /// Cuts embedding and head so that no piece of them is above `largest_buffer` bytes.
    pub fn fit_vocabulary(&mut self, largest_buffer: u64, bytes_per_value: usize) {
        let row = (self.hidden_size * bytes_per_value).max(1) as u64;
        let rows = usize::try_from(largest_buffer / row).unwrap_or(usize::MAX).max(1);
        self.vocab_pieces = self.vocab_size.div_ceil(rows).max(1);
    }

    /// Tokens that the decoder can hold: the trained context, times the factor of a rotary scaling.
    pub fn context_length(&self) -> usize {
        let trained = self.max_position_embeddings;
        match self.rope_scaling {
            None => trained,
            Some(RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor }) => {
                trained.max((trained as f64 * factor) as usize)
            }
            // Such configs state the scaled context, but the original one is the more reliable base.
            Some(RopeScaling::Llama3 { factor, original_max_position_embeddings, .. }) => {
                trained.max((original_max_position_embeddings as f64 * factor) as usize)
            }
        }
    }

    /// Whether q, k and v have biases.
    pub fn qkv_bias(&self) -> bool {
        self.family == LlmFamily::Qwen2 || self.attention_bias
    }

    /// Whether the attention's output projection has a bias.
    pub fn output_bias(&self) -> bool {
        self.family == LlmFamily::Llama && self.attention_bias
    }

    /// Checks that the sizes are in their bounds and fit together.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        check_sizes(
            "",
            [
                ("vocab_size", self.vocab_size, VOCABULARY),
                ("hidden_size", self.hidden_size, WIDTH),
                ("intermediate_size", self.intermediate_size, WIDTH),
                ("num_hidden_layers", self.num_hidden_layers, LAYERS),
                ("num_attention_heads", self.num_attention_heads, HEADS),
                ("num_key_value_heads", self.num_key_value_heads, HEADS),
                ("head_dim", self.head_dim, WIDTH),
                ("max_position_embeddings", self.max_position_embeddings, POSITIONS),
            ],
        )?;
        let heads = ("num_attention_heads", self.num_attention_heads);
        multiple("", heads, ("num_key_value_heads", self.num_key_value_heads))?;
        check("num_attention_heads * head_dim", self.num_attention_heads * self.head_dim, WIDTH)?;
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::Config(format!(
                "head_dim = {} is odd; rotary embeddings rotate pairs",
                self.head_dim
            )));
        }
        check("rms_norm_eps", self.rms_norm_eps, EPSILON)?;
        check("initializer_range", self.initializer_range, 0.0..=10.0)?;
        check("rope_theta", self.rope_theta, ROPE_THETA)?;
        match self.rope_scaling {
            None => Ok(()),
            Some(RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor }) => {
                check("rope_scaling.factor", factor, ROPE_FACTOR)
            }
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                let key = "rope_scaling.original_max_position_embeddings";
                check("rope_scaling.factor", factor, ROPE_FACTOR)?;
                check("rope_scaling.low_freq_factor", low_freq_factor, ROPE_FACTOR)?;
                check("rope_scaling.high_freq_factor", high_freq_factor, ROPE_FACTOR)?;
                check(key, original_max_position_embeddings, POSITIONS)
            }
        }
    }
}

/// Bases of rotary frequencies.
const ROPE_THETA: RangeInclusive<f64> = 1.0..=1e12;
/// Factors of rotary scalings; those of published models are between 0.25 and 64.
const ROPE_FACTOR: RangeInclusive<f64> = 1e-3..=1e4;
