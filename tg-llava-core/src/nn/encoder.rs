use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Tensor};

use super::{
    Activation, Mlp, MlpConfig, add, apply_linear, attention, layer_norm, linear, merge_heads, split_heads,
};

/// Sizes of a pre-norm encoder block, as CLIP and SigLIP have it in both towers.
#[derive(Debug, Clone, Copy)]
pub struct EncoderLayerConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Function of the feed-forward.
    pub activation: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
}

/// Self-attention with biases everywhere.
#[derive(Module, Debug)]
pub struct EncoderAttention {
    /// Query projection.
    pub q_proj: Linear,
    /// Key projection.
    pub k_proj: Linear,
    /// Value projection.
    pub v_proj: Linear,
    /// Output projection.
    pub out_proj: Linear,
    num_heads: usize,
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Norm before the attention.
    pub layer_norm1: LayerNorm,
    /// Attention.
    pub self_attn: EncoderAttention,
    /// Norm before the feed-forward.
    pub layer_norm2: LayerNorm,
    /// Feed-forward.
    pub mlp: Mlp,
    epsilon: f64,
}

/// Standard deviation of a freshly initialised tower's weights.
const INITIALIZER_RANGE: f64 = 0.02;

impl EncoderLayerConfig {
    /// A randomly initialised block.
    pub fn init(&self, device: &Device) -> EncoderLayer {
        let width = self.hidden_size;
        let proj = || linear(width, width, true, INITIALIZER_RANGE, device);
        let norm = || LayerNormConfig::new(width).with_epsilon(self.layer_norm_eps).init(device);
        EncoderLayer {
            layer_norm1: norm(),
            self_attn: EncoderAttention {
                q_proj: proj(),
                k_proj: proj(),
                v_proj: proj(),
                out_proj: proj(),
                num_heads: self.num_heads,
            },
            layer_norm2: norm(),
            mlp: MlpConfig {
                d_input: width,
                d_hidden: self.intermediate_size,
                d_output: width,
                activation: self.activation,
                initializer_range: INITIALIZER_RANGE,
            }
            .init(device),
            epsilon: self.layer_norm_eps,
        }
    }
}

impl EncoderAttention {
    /// # Shapes
    /// - x: `[batch, len, hidden]`, output the same
    /// - bias: `[batch or 1, 1, len or 1, len]`
    pub fn forward(&self, x: Tensor<3>, bias: Option<&Tensor<4>>) -> Tensor<3> {
        let heads = |proj: &Linear| split_heads(apply_linear(proj, x.clone()), self.num_heads);
        let (query, key, value) = (heads(&self.q_proj), heads(&self.k_proj), heads(&self.v_proj));
        apply_linear(&self.out_proj, merge_heads(attention(query, key, value, bias, None)))
    }
}

impl EncoderLayer {
    /// # Shapes
    /// - x: `[batch, len, hidden]`, output the same
    /// - bias: `[batch or 1, 1, len or 1, len]`
    pub fn forward(&self, x: Tensor<3>, bias: Option<&Tensor<4>>) -> Tensor<3> {
        let normed = layer_norm(&self.layer_norm1, self.epsilon, x.clone());
        let x = add(x, self.self_attn.forward(normed, bias));
        add(x.clone(), self.mlp.forward(layer_norm(&self.layer_norm2, self.epsilon, x)))
    }
}
