use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};

use crate::config::DetailPerceiverConfig;
use crate::nn::{Activation, GatedMlp, GatedMlpConfig, attention, merge_heads, rms_norm, split_heads};
use crate::pass::{Pass, Site};

/// An Idefics2-style resampler: latents read a context layer by layer.
#[derive(Module, Debug)]
pub struct Perceiver {
    /// Latents, `[num_latents, hidden]`.
    pub latents: Param<Tensor<2>>,
    /// Layers.
    pub layers: Vec<PerceiverLayer>,
    /// Norm behind the last layer.
    pub norm: RmsNorm,
}

/// Attention over context and latents, then a gated feed-forward, pre-norm.
#[derive(Module, Debug)]
pub struct PerceiverLayer {
    /// Norm of the latents.
    pub input_latents_norm: RmsNorm,
    /// Norm of the context.
    pub input_context_norm: RmsNorm,
    /// Attention.
    pub self_attn: PerceiverAttention,
    /// Norm before the feed-forward.
    pub post_attention_layernorm: RmsNorm,
    /// Feed-forward.
    pub mlp: GatedMlp,
}

/// Grouped-query attention without biases.
#[derive(Module, Debug)]
pub struct PerceiverAttention {
    /// Query projection, of the latents.
    pub q_proj: Linear,
    /// Key projection, of context and latents.
    pub k_proj: Linear,
    /// Value projection, of context and latents.
    pub v_proj: Linear,
    /// Output projection.
    pub o_proj: Linear,
    num_heads: usize,
    num_kv_heads: usize,
}

impl Perceiver {
    pub(super) fn init(config: &DetailPerceiverConfig, device: &Device) -> Self {
        Self {
            // Random, since equal latents would get equal gradients and stay equal for ever.
            latents: Initializer::Normal { mean: 0.0, std: 0.02 }
                .init([config.num_latents, config.hidden_size], device),
            layers: (0..config.depth).map(|_| PerceiverLayer::init(config, device)).collect(),
            norm: norm(config, device),
        }
    }

    /// The latents, once a sample: `[batch, num_latents, hidden]`.
    pub fn queries(&self, batch: usize) -> Tensor<3> {
        let latents = self.latents.val();
        let [count, width] = latents.dims();
        latents.reshape([1, count, width]).expand([batch, count, width])
    }
}

impl PerceiverLayer {
    fn init(config: &DetailPerceiverConfig, device: &Device) -> Self {
        let proj = |from: usize, to: usize| LinearConfig::new(from, to).with_bias(false).init(device);
        let (width, head_dim) = (config.hidden_size, config.head_dim);
        Self {
            input_latents_norm: norm(config, device),
            input_context_norm: norm(config, device),
            self_attn: PerceiverAttention {
                q_proj: proj(width, config.num_heads * head_dim),
                k_proj: proj(width, config.num_key_value_heads * head_dim),
                v_proj: proj(width, config.num_key_value_heads * head_dim),
                o_proj: proj(config.num_heads * head_dim, width),
                num_heads: config.num_heads,
                num_kv_heads: config.num_key_value_heads,
            },
            post_attention_layernorm: norm(config, device),
            mlp: GatedMlpConfig {
                hidden_size: width,
                intermediate_size: config.intermediate_size,
                activation: Activation::Silu,
                initializer_range: 0.02,
            }
            .init(device),
        }
    }

    /// `x + attention(norm(x), norm(context))`, then `x + mlp(norm(x))`. `index` is the layer's number.
    ///
    /// # Shapes
    /// - latents: `[batch, num_latents, hidden]`, output the same
    /// - context: `[batch, context_len, hidden]`
    /// - bias: `[batch, 1, 1, context_len + num_latents]`
    pub fn walk<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        index: usize,
        latents: P::Var,
        context: P::Var,
        bias: Option<Tensor<4>>,
    ) -> P::Var {
        let inputs = [latents.clone(), context];
        let attended = pass.run_one(Site::DetailAttention(index), &inputs, move |x| {
            let latents = rms_norm(&self.input_latents_norm, x[0].clone());
            let context = rms_norm(&self.input_context_norm, x[1].clone());
            self.self_attn.forward(latents, context, bias.as_ref())
        });
        pass.run_one(Site::DetailBlock(index), &[latents, attended], |x| {
            let latents = x[0].clone() + x[1].clone();
            latents.clone() + self.mlp.forward(rms_norm(&self.post_attention_layernorm, latents))
        })
    }
}

impl PerceiverAttention {
    /// # Shapes
    /// - latents: `[batch, num_latents, hidden]`, output the same
    /// - context: `[batch, context_len, hidden]`
    /// - bias: `[batch, 1, 1, context_len + num_latents]`
    pub fn forward(&self, latents: Tensor<3>, context: Tensor<3>, bias: Option<&Tensor<4>>) -> Tensor<3> {
        let query = split_heads(self.q_proj.forward(latents.clone()), self.num_heads);
        let context = Tensor::cat(vec![context, latents], 1);
        let key = split_heads(self.k_proj.forward(context.clone()), self.num_kv_heads);
        let value = split_heads(self.v_proj.forward(context), self.num_kv_heads);
        self.o_proj.forward(merge_heads(attention(query, key, value, bias, None)))
    }
}

fn norm(config: &DetailPerceiverConfig, device: &Device) -> RmsNorm {
    RmsNormConfig::new(config.hidden_size).with_epsilon(config.rms_norm_eps).init(device)
}
