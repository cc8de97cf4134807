use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::GuideInput;
use crate::config::{TextTowerConfig, TowerFamily};
use crate::nn::{
    EncoderLayer, EncoderLayerConfig, causal_bias, combine_bias, key_padding_bias, layer_norm, linear,
};
use crate::pass::{Eager, Pass, Site};

/// A CLIP or SigLIP text transformer (`text_tower`).
#[derive(Module, Debug)]
pub struct TextTower {
    /// One vector a token.
    pub token_embedding: Embedding,
    /// One vector a position.
    pub position_embedding: Embedding,
    /// Blocks; causal in CLIP.
    pub layers: Vec<EncoderLayer>,
    /// Norm behind the last block.
    pub final_layer_norm: LayerNorm,
    /// SigLIP's projection of the pooled state.
    pub head: Option<Linear>,
    epsilon: f64,
    causal: bool,
}

/// What the bridges read of a batch of guide texts.
#[derive(Debug, Clone)]
pub struct TextFeatures {
    /// Hidden states behind the final norm, `[batch, len, hidden]`.
    pub last_hidden_state: Tensor<3>,
    /// State at the end of each text, `[batch, hidden]`.
    pub pooled: Tensor<2>,
}

impl TextTowerConfig {
    /// A randomly initialised tower.
    pub fn init(&self, device: &Device) -> TextTower {
        let width = self.hidden_size;
        let embedding = |count: usize| {
            EmbeddingConfig::new(count, width)
                .with_initializer(Initializer::Normal { mean: 0.0, std: 0.02 })
                .init(device)
        };
        let layer = EncoderLayerConfig {
            hidden_size: width,
            intermediate_size: self.intermediate_size,
            num_heads: self.num_attention_heads,
            activation: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        };
        TextTower {
            token_embedding: embedding(self.vocab_size),
            position_embedding: embedding(self.max_position_embeddings),
            layers: (0..self.num_hidden_layers).map(|_| layer.init(device)).collect(),
            final_layer_norm: LayerNormConfig::new(width).with_epsilon(self.layer_norm_eps).init(device),
            head: (self.family == TowerFamily::Siglip).then(|| linear(width, width, true, 0.02, device)),
            epsilon: self.layer_norm_eps,
            causal: self.family == TowerFamily::Clip,
        }
    }
}

impl TextTower {
    /// Token and position embeddings, `[batch, len, hidden]`.
    pub fn embed(&self, ids: &[Vec<i64>]) -> Tensor<3> {
        let device = self.token_embedding.weight.device();
        let (batch, len) = (ids.len(), ids.first().map_or(0, Vec::len));
        let flat: Vec<i64> = ids.iter().flatten().copied().collect();
        let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(flat, [batch, len]), &device);
        let positions = Tensor::<1, Int>::arange(0..len as i64, &device).unsqueeze::<2>();
        self.token_embedding.forward(ids) + self.position_embedding.forward(positions)
    }

    /// What the attention of every block may see.
    ///
    /// # Shapes
    /// - output: `[batch, 1, len or 1, len]`; `None` where everything is visible
    pub fn attention_bias(&self, input: &GuideInput) -> Option<Tensor<4>> {
        let device = self.token_embedding.weight.device();
        let len = input.ids.first().map_or(0, Vec::len);
        let causal = self.causal.then(|| causal_bias(0..len, len, &device));
        let hides = input.tower_mask.iter().flatten().any(|&visible| !visible);
        combine_bias(causal, hides.then(|| key_padding_bias(&input.tower_mask, &device)))
    }

    /// Reads a batch of guide texts.
    pub fn forward(&self, input: &GuideInput) -> TextFeatures {
        let [last_hidden_state, pooled] = self.walk(&mut Eager, input);
        TextFeatures { last_hidden_state, pooled: pooled.squeeze_dim(1) }
    }

    /// [`Self::forward`], step by step: hidden states, and the pooled ones with an axis of length 1 before the last.
    pub fn walk<'m, P: Pass<'m>>(&'m self, pass: &mut P, input: &GuideInput) -> [P::Var; 2] {
        let bias = self.attention_bias(input);
        let ids = input.ids.clone();
        let mut hidden = pass.run_one(Site::TextEmbed, &[], move |_| self.embed(&ids));
        for (block, layer) in self.layers.iter().enumerate() {
            let bias = bias.clone();
            let step = move |x: &[Tensor<3>]| layer.forward(x[0].clone(), bias.as_ref());
            hidden = pass.run_one(Site::TextBlock(block), &[hidden], step);
        }
        let positions = input.pooled_positions.clone();
        let outputs = pass.run(Site::TextFeatures, &[hidden], move |x| {
            let last_hidden_state = layer_norm(&self.final_layer_norm, self.epsilon, x[0].clone());
            let pooled = self.pool(&last_hidden_state, &positions);
            vec![last_hidden_state, pooled.unsqueeze_dim(1)]
        });
        [outputs[0].clone(), outputs[1].clone()]
    }

    fn pool(&self, hidden: &Tensor<3>, positions: &[usize]) -> Tensor<2> {
        let [batch, len, width] = hidden.dims();
        let flat: Vec<i64> = positions.iter().enumerate().map(|(row, p)| (row * len + p) as i64).collect();
        let indices = Tensor::from_data(TensorData::new(flat, [batch]), &hidden.device());
        let pooled = hidden.clone().reshape([batch * len, width]).select(0, indices);
        match &self.head {
            Some(head) => head.forward(pooled),
            None => pooled,
        }
    }
}
