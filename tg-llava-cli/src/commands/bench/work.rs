//! Operations and bytes that each phase cannot do without.

use std::ops::Add;

use tg_llava_core::config::{LlmConfig, VisionTowerConfig};
use tg_llava_core::llm::Llm;
use tg_llava_core::quant::MatrixSite;

/// What has to be computed and moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Work {
    /// Floating-point operations; a multiply-add is two.
    pub(super) flops: f64,
    /// Bytes that must come from memory at least once.
    pub(super) bytes: f64,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl Work {
    /// The first `layers` blocks of the vision tower over `pictures`, `width` bytes a number.
    pub(super) fn vision(config: &VisionTowerConfig, layers: usize, pictures: usize, width: usize) -> Self {
        let (hidden, tokens) = (config.hidden_size as f64, config.num_positions() as f64);
        let block = 4.0 * hidden * hidden + 2.0 * hidden * config.intermediate_size as f64;
        let patch = hidden * (config.num_channels * config.patch_size.pow(2)) as f64;
        let weights = layers as f64 * block + patch;
        let attention = layers as f64 * 4.0 * tokens * tokens * hidden;
        let per_picture = tokens * 2.0 * weights + attention;
        Self { flops: pictures as f64 * per_picture, bytes: weights * width as f64 }
    }

    /// The decoder over `new` tokens behind `past`, with scores for `scored` of them.
    pub(super) fn decoder(config: &LlmConfig, new: usize, past: usize, scored: usize, width: usize) -> Self {
        let [hidden, layers, new, past, scored] =
            [config.hidden_size, config.num_hidden_layers, new, past, scored].map(|n| n as f64);
        let query = (config.num_attention_heads * config.head_dim) as f64;
        let key = (config.num_key_value_heads * config.head_dim) as f64;
        let block = hidden * (2.0 * query + 2.0 * key + 3.0 * config.intermediate_size as f64);
        let head = hidden * config.vocab_size as f64;
        // Causal: a token sees itself and what stands before it.
        let seen = new * past + new * (new + 1.0) / 2.0;
        let flops = layers * (2.0 * new * block + 4.0 * seen * query) + 2.0 * scored * head;
        let cache = layers * 2.0 * key * (past + new);
        Self { flops, bytes: (layers * block + head + cache) * width as f64 }
    }

    /// [`Work::decoder`] where matrices of `llm` are quantised instead of numbers of `width` bytes.
    pub(super) fn quantised(self, llm: &Llm, width: usize) -> Self {
        let read = llm.matrices().filter(|(site, _)| *site != MatrixSite::Embedding || llm.lm_head.is_none());
        let saved = read.filter_map(|(_, matrix)| matrix.quantised()).map(|matrix| {
            let values = matrix.shape().iter().product::<usize>();
            (values * width) as f64 - matrix.num_bytes() as f64
        });
        Self { bytes: self.bytes - saved.sum::<f64>(), ..self }
    }

    /// Forwards and backwards of what takes `self` forwards. Block recompute runs forwards twice; frozen weights
    /// need half of the backward pass.
    pub(super) fn trained(self, weights_learn: bool, recompute: bool) -> Self {
        let passes = 2.0 + f64::from(u8::from(weights_learn)) + f64::from(u8::from(recompute));
        Self { flops: passes * self.flops, bytes: passes * self.bytes }
    }

    /// `count` times as much to compute over the same weights.
    pub(super) fn rows(self, count: usize) -> Self {
        Self { flops: self.flops * count as f64, ..self }
    }
}

#[cfg(test)]
mod tests {
    use tg_llava_core::config::{llm_preset, tower_preset};

    use super::*;

    #[test]
    fn one_token_costs_twice_the_weights() {
        let config = llm_preset("vicuna-7b").expect("a preset");
        let work = Work::decoder(&config, 1, 0, 1, 2);
        // 6.74e9 parameters, of which 0.13e9 are the input embeddings, which are only looked up.
        assert!((work.flops / 2.0 - 6.607e9).abs() < 0.01e9, "{}", work.flops);
        assert!((work.bytes / 2.0 - 6.607e9).abs() < 0.01e9);
    }

    #[test]
    fn the_large_tower_has_300_million_weights() {
        let (vision, _) = tower_preset("clip-l-336").expect("a preset");
        let work = Work::vision(&vision, 24, 1, 4);
        assert!((work.bytes / 4.0 - 302.6e6).abs() < 1e6, "{}", work.bytes);
    }
}
