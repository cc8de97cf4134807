use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};

use super::VisionEmbeddings;
use crate::config::{SelectFeature, TowerFamily, VisionTowerConfig};
use crate::nn::{EncoderLayer, EncoderLayerConfig, cast_to, layer_norm};
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
    /// - pixels: `[batch, channels, image_size, image_size]`, of any float type
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
    /// - pixels: `[batch, channels, image_size, image_size]`, of any float type
    /// - output: `[batch, num_positions, hidden]`
    pub fn embed(&self, pixels: Tensor<4>) -> Tensor<3> {
        let hidden = self.embeddings.forward(cast_to(pixels, self.post_layernorm.gamma.dtype()));
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

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::config::tiny;

    fn tower(family: TowerFamily) -> (VisionTower, Tensor<4>) {
        let config = VisionTowerConfig { family, ..tiny(64).multimodal.expect("has a tower").vision };
        let device = Device::flex();
        device.seed(1);
        let side = config.image_size;
        (config.init(&device), Tensor::random([2, 3, side, side], Distribution::Normal(0.0, 1.0), &device))
    }

    #[test]
    fn patch_leaves_the_class_token_out() {
        let (tower, pixels) = tower(TowerFamily::Clip);
        let all = tower.select(tower.hidden_state(pixels.clone(), 2), SelectFeature::ClsPatch);
        assert_eq!(all.dims(), [2, 5, 16]);
        let patches = tower.select(tower.hidden_state(pixels, 2), SelectFeature::Patch);
        patches.into_data().assert_eq(&all.narrow(1, 1, 4).into_data(), true);
    }

    #[test]
    fn siglip_has_no_class_token_to_leave_out() {
        let (tower, pixels) = tower(TowerFamily::Siglip);
        for select in [SelectFeature::Patch, SelectFeature::ClsPatch] {
            assert_eq!(tower.select(tower.hidden_state(pixels.clone(), 3), select).dims(), [2, 4, 16]);
        }
    }

    #[test]
    fn a_hidden_state_is_that_behind_as_many_blocks() {
        let (tower, pixels) = tower(TowerFamily::Clip);
        let mut hidden = tower.embed(pixels.clone());
        for index in 0..=tower.layers.len() {
            tower
                .hidden_state(pixels.clone(), index)
                .into_data()
                .assert_eq(&hidden.clone().into_data(), true);
            if let Some(layer) = tower.layers.get(index) {
                hidden = layer.forward(hidden, None);
            }
        }
    }

    /// Each picture of a batch is seen alone.
    #[test]
    fn a_row_equals_the_single_picture() {
        let (tower, pixels) = tower(TowerFamily::Clip);
        let both = tower.hidden_state(pixels.clone(), 3).narrow(0, 1, 1);
        let alone = tower.hidden_state(pixels.narrow(0, 1, 1), 3);
        both.into_data().assert_approx_eq::<f32>(&alone.into_data(), burn::tensor::Tolerance::absolute(1e-5));
    }
}
