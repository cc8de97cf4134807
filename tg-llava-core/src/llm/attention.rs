use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::DecoderContext;
use crate::config::LlmConfig;
use crate::nn::{BlockLinear, LayerTexts, apply_rotary, attention, join, merge_heads, split_heads};

/// Causal self-attention with rotary positions and grouped key heads.
#[derive(Module, Debug)]
pub struct DecoderAttention {
    /// Query projection.
    pub q_proj: BlockLinear,
    /// Key projection.
    pub k_proj: BlockLinear,
    /// Value projection.
    pub v_proj: BlockLinear,
    /// Output projection.
    pub o_proj: BlockLinear,
    num_heads: usize,
    num_kv_heads: usize,
}

impl DecoderAttention {
    pub(super) fn init(config: &LlmConfig, device: &Device) -> Self {
        let (hidden, head_dim) = (config.hidden_size, config.head_dim);
        let proj = |from: usize, to: usize, bias: bool| {
            BlockLinear::init(from, to, bias, config.initializer_range, device)
        };
        Self {
            q_proj: proj(hidden, config.num_attention_heads * head_dim, config.qkv_bias()),
            k_proj: proj(hidden, config.num_key_value_heads * head_dim, config.qkv_bias()),
            v_proj: proj(hidden, config.num_key_value_heads * head_dim, config.qkv_bias()),
            o_proj: proj(config.num_attention_heads * head_dim, hidden, config.output_bias()),
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
        }
    }

    /// # Shapes
    /// - x: `[batch, len, hidden]`, output the same
    /// - cache: this layer's, where earlier tokens are to be seen too
    pub fn forward(
        &self,
        x: Tensor<3>,
        context: &DecoderContext,
        cache: Option<LayerTexts<'_, '_>>,
    ) -> Tensor<3> {
        let turned = |proj: &BlockLinear, num_heads| {
            apply_rotary(split_heads(proj.forward(x.clone()), num_heads), &context.rotary)
        };
        let keys_and_values = || {
            let value = || split_heads(self.v_proj.forward(x.clone()), self.num_kv_heads);
            join(&x, || turned(&self.k_proj, self.num_kv_heads), value)
        };
        let (query, (key, value)) = join(&x, || turned(&self.q_proj, self.num_heads), keys_and_values);
        let attended = match cache {
            Some(texts) => texts.attend(query, key, value),
            None => attention(query, key, value, context.bias.as_ref(), None),
        };
        self.o_proj.forward(merge_heads(attended))
    }
}
