use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};

use super::{DecoderAttention, DecoderContext};
use crate::config::LlmConfig;
use crate::nn::{Activation, GatedMlp, GatedMlpConfig, LayerTexts, Residual, add, rms_norm};

/// One decoder block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Norm before the attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: DecoderAttention,
    /// Norm before the feed-forward.
    pub post_attention_layernorm: RmsNorm,
    /// Feed-forward.
    pub mlp: GatedMlp,
}

impl DecoderLayer {
    pub(super) fn init(config: &LlmConfig, device: &Device) -> Self {
        let norm = || RmsNormConfig::new(config.hidden_size).with_epsilon(config.rms_norm_eps).init(device);
        Self {
            input_layernorm: norm(),
            self_attn: DecoderAttention::init(config, device),
            post_attention_layernorm: norm(),
            mlp: GatedMlpConfig {
                hidden_size: config.hidden_size,
                intermediate_size: config.intermediate_size,
                activation: Activation::Silu,
                initializer_range: config.initializer_range,
            }
            .init(device),
        }
    }

    /// # Shapes
    /// - x: `[batch, len, hidden]`, output the same
    pub fn forward(
        &self,
        x: Tensor<3>,
        context: &DecoderContext,
        cache: Option<LayerTexts<'_, '_>>,
    ) -> Tensor<3> {
        self.up_to_last(x, context, cache).sum()
    }

    /// [`Self::forward`] up to its last product.
    pub fn up_to_last(
        &self,
        x: Tensor<3>,
        context: &DecoderContext,
        cache: Option<LayerTexts<'_, '_>>,
    ) -> Residual<'_> {
        let normed = rms_norm(&self.input_layernorm, x.clone());
        let base = add(x, self.self_attn.forward(normed, context, cache));
        let input = self.mlp.before_down(rms_norm(&self.post_attention_layernorm, base.clone()));
        Residual { base, input, last: &self.mlp.down_proj }
    }
}
