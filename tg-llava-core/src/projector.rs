//! From vision width to decoder width (`mm_projector`).

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use crate::config::ProjectorConfig;
use crate::nn::{Activation, linear};

/// Linear layers with GELU between them: none is the identity, one is `linear`, more are `mlpNx_gelu`.
#[derive(Module, Debug)]
pub struct Projector {
    /// Layers in order; their keys are `mm_projector.0`, `.2`, `.4` ... or `mm_projector` for `linear`.
    pub layers: Vec<Linear>,
}

impl ProjectorConfig {
    /// A randomly initialised projector.
    pub fn init(&self, vision_width: usize, llm_width: usize, device: &Device) -> Projector {
        let depth = match *self {
            Self::Identity => 0,
            Self::Linear => 1,
            Self::MlpGelu(depth) => depth,
        };
        let layer = |index: usize| {
            let from = if index == 0 { vision_width } else { llm_width };
            linear(from, llm_width, true, 0.02, device)
        };
        Projector { layers: (0..depth).map(layer).collect() }
    }
}

impl Projector {
    /// # Shapes
    /// - features: `[batch, tokens, vision_width]`
    /// - output: `[batch, tokens, llm_width]`
    pub fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        self.layers.iter().enumerate().fold(features, |x, (index, layer)| {
            let x = if index == 0 { x } else { Activation::Gelu.forward(x) };
            layer.forward(x)
        })
    }
}
