use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};

use super::VisionEmbeddings;
use crate::config::{SelectFeature, TowerFamily, VisionTowerConfig};
use crate::nn::{EncoderLayer, EncoderLayerConfig, layer_norm};
use crate::pass::{Eager, Pass, Site};

/// A CLIP or SigLIP vision transformer (`vision_tower`).
#[derive(Module, Debug)]
pub struct VisionTower {
    /// Patches to tokens.
    pub embeddings: VisionEmbeddings,
    /// CLIP's norm before the first block; its key is spelled `pre_layrnorm`.
    pub pre_layernorm: Option<LayerNorm>,
    /// Blocks.
    pub layers: Vec<EncoderLayer>,
    /// Norm behind the last block. Features are taken before it; checkpoints hold it.
    pub post_layernorm: LayerNorm,
    epsilon: f64,
}

impl VisionTowerConfig {
    /// A randomly initialised tower.
    pub fn init(&self, device: &Device) -> VisionTower {
        let norm = || LayerNormConfig::new(self.hidden_size).with_epsilon(self.layer_norm_eps).init(device);
        let layer = EncoderLayerConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_heads: self.num_attention_heads,
            activation: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        };
        VisionTower {
            embeddings: VisionEmbeddings::init(self, device),
            pre_layernorm: (self.family == TowerFamily::Clip).then(norm),
            layers: (0..self.num_hidden_layers).map(|_| layer.init(device)).collect(),
            post_layernorm: norm(),
            epsilon: self.layer_norm_eps,
        }
    }
}

impl VisionTower {
    /// Hidden state `index`: 0 stands before the first block, `n` behind block `n`. The blocks behind it
    /// are not computed.
    ///
    /// # Shapes
    /// - pixels: `[batch, channels, image_size, image_size]`
    /// - output: `[batch, num_positions, hidden]`
    pub fn hidden_state(&self, pixels: Tensor<4>, index: usize) -> Tensor<3> {
        self.walk(&mut Eager, pixels, index)
    }

    /// [`Self::hidden_state`], step by step.
    pub fn walk<'m, P: Pass<'m>>(&'m self, pass: &mut P, pixels: Tensor<4>, index: usize) -> P::Var {
        let mut hidden = pass.run_one(Site::VisionEmbed, &[], move |_| self.embed(pixels.clone()));
        for (block, layer) in self.layers[..index].iter().enumerate() {
            hidden = pass.run_one(Site::VisionBlock(block), &[hidden], |x| layer.forward(x[0].clone(), None));
        }
        hidden
    }

    /// What the first block reads: hidden state 0.
    ///
    /// # Shapes
    /// - pixels: `[batch, channels, image_size, image_size]`
    /// - output: `[batch, num_positions, hidden]`
    pub fn embed(&self, pixels: Tensor<4>) -> Tensor<3> {
        let hidden = self.embeddings.forward(pixels);
        match &self.pre_layernorm {
            Some(norm) => layer_norm(norm, self.epsilon, hidden),
            None => hidden,
        }
    }

    /// Hidden states without the class token unless `select` wants it.
    ///
    /// # Shapes
    /// - hidden: `[batch, num_positions, hidden]`
    /// - output: `[batch, num_vision_tokens, hidden]`
    pub fn select(&self, hidden: Tensor<3>, select: SelectFeature) -> Tensor<3> {
        let positions = hidden.dims()[1];
        match (select, &self.embeddings.class_embedding) {
            (SelectFeature::Patch, Some(_)) => hidden.narrow(1, 1, positions - 1),
            _ => hidden,
        }
    }
}
