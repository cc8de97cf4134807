use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Tensor};

use crate::config::FeatureGuideConfig;
use crate::nn::{Activation, attention, layer_norm, linear, merge_heads, split_heads};
use crate::pass::{Pass, Site};

/// BERT's initial standard deviation.
const INITIALIZER_RANGE: f64 = 0.02;

/// BLIP-2's Q-Former on its query branch alone: post-norm BERT layers over learned latents.
#[derive(Module, Debug)]
pub struct QFormer {
    /// BERT's embedding norm, applied to the latents.
    pub embed_norm: LayerNorm,
    /// Layers; the first of every `cross_attention_freq` reads the text.
    pub layers: Vec<QFormerLayer>,
    dropout: Dropout,
    epsilon: f64,
}

/// Self-attention, on some layers cross-attention to the text, feed-forward; each with residual and norm.
#[derive(Module, Debug)]
pub struct QFormerLayer {
    /// Latents to latents.
    pub attention: QFormerAttention,
    /// Latents to text.
    pub cross_attention: Option<QFormerAttention>,
    /// The query branch's feed-forward.
    pub ffn: QFormerFeedForward,
}

/// `norm(x + dropout(dense(attention)))`.
#[derive(Module, Debug)]
pub struct QFormerAttention {
    /// Query projection.
    pub query: Linear,
    /// Key projection.
    pub key: Linear,
    /// Value projection.
    pub value: Linear,
    /// Output projection.
    pub dense: Linear,
    /// Norm behind the residual.
    pub norm: LayerNorm,
    dropout: Dropout,
    num_heads: usize,
    epsilon: f64,
}

/// `norm(x + dropout(down(gelu(up(x)))))`.
#[derive(Module, Debug)]
pub struct QFormerFeedForward {
    /// `intermediate_query`.
    pub up: Linear,
    /// `output_query`.
    pub down: Linear,
    /// Norm behind the residual.
    pub norm: LayerNorm,
    dropout: Dropout,
    epsilon: f64,
}

impl QFormer {
    pub(super) fn init(config: &FeatureGuideConfig, device: &Device) -> Self {
        let layer = |index: usize| QFormerLayer {
            attention: QFormerAttention::init(config, config.hidden_size, device),
            cross_attention: index
                .is_multiple_of(config.cross_attention_freq)
                .then(|| QFormerAttention::init(config, config.encoder_width, device)),
            ffn: QFormerFeedForward::init(config, device),
        };
        Self {
            embed_norm: norm(config, device),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            dropout: DropoutConfig::new(config.dropout).init(),
            epsilon: config.layer_norm_eps,
        }
    }

    /// The latents as the first layer reads them.
    pub fn embed(&self, queries: Tensor<3>) -> Tensor<3> {
        self.dropout.forward(layer_norm(&self.embed_norm, self.epsilon, queries))
    }
}

impl QFormerLayer {
    /// Self-attention, attention to the text where there is one, feed-forward. `index` is the layer's number.
    ///
    /// # Shapes
    /// - latents: `[batch, num_queries, hidden]`, output the same
    /// - text: `[batch, text_len, encoder_width]`
    pub fn walk<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        index: usize,
        latents: P::Var,
        text: &P::Var,
    ) -> P::Var {
        let mut latents = pass.run_one(Site::GuideSelfAttention(index), &[latents], |x| {
            self.attention.forward(x[0].clone(), &x[0])
        });
        if let Some(cross) = &self.cross_attention {
            let inputs = [latents, text.clone()];
            latents = pass
                .run_one(Site::GuideCrossAttention(index), &inputs, |x| cross.forward(x[0].clone(), &x[1]));
        }
        pass.run_one(Site::GuideBlock(index), &[latents], |x| self.ffn.forward(x[0].clone()))
    }
}

impl QFormerAttention {
    fn init(config: &FeatureGuideConfig, context_width: usize, device: &Device) -> Self {
        let width = config.hidden_size;
        let proj = |from: usize| linear(from, width, true, INITIALIZER_RANGE, device);
        Self {
            query: proj(width),
            key: proj(context_width),
            value: proj(context_width),
            dense: proj(width),
            norm: norm(config, device),
            dropout: DropoutConfig::new(config.dropout).init(),
            num_heads: config.num_attention_heads,
            epsilon: config.layer_norm_eps,
        }
    }

    /// # Shapes
    /// - hidden: `[batch, num_queries, hidden]`, output the same
    /// - context: `[batch, context_len, context_width]`
    pub fn forward(&self, hidden: Tensor<3>, context: &Tensor<3>) -> Tensor<3> {
        let query = split_heads(self.query.forward(hidden.clone()), self.num_heads);
        let key = split_heads(self.key.forward(context.clone()), self.num_heads);
        let value = split_heads(self.value.forward(context.clone()), self.num_heads);
        let attended = merge_heads(attention(query, key, value, None, Some(&self.dropout)));
        let attended = self.dropout.forward(self.dense.forward(attended));
        layer_norm(&self.norm, self.epsilon, hidden + attended)
    }
}

impl QFormerFeedForward {
    fn init(config: &FeatureGuideConfig, device: &Device) -> Self {
        let (width, inter) = (config.hidden_size, config.intermediate_size);
        Self {
            up: linear(width, inter, true, INITIALIZER_RANGE, device),
            down: linear(inter, width, true, INITIALIZER_RANGE, device),
            norm: norm(config, device),
            dropout: DropoutConfig::new(config.dropout).init(),
            epsilon: config.layer_norm_eps,
        }
    }

    /// # Shapes
    /// - hidden: `[batch, num_queries, hidden]`, output the same
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let out = self.down.forward(Activation::Gelu.forward(self.up.forward(hidden.clone())));
        layer_norm(&self.norm, self.epsilon, hidden + self.dropout.forward(out))
    }
}

fn norm(config: &FeatureGuideConfig, device: &Device) -> LayerNorm {
    LayerNormConfig::new(config.hidden_size).with_epsilon(config.layer_norm_eps).init(device)
}
