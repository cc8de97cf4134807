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

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    fn features(device: &Device) -> Tensor<3> {
        device.seed(1);
        Tensor::random([2, 5, 8], Distribution::Normal(0.0, 1.0), device)
    }

    #[test]
    fn no_layers_are_the_identity() {
        let device = Device::flex();
        let projector = ProjectorConfig::Identity.init(8, 8, &device);
        let x = features(&device);
        projector.forward(x.clone()).into_data().assert_eq(&x.into_data(), true);
    }

    #[test]
    fn the_width_changes_and_one_layer_is_linear() {
        let device = Device::flex();
        let x = features(&device);
        let curved = |config: ProjectorConfig| {
            let projector = config.init(8, 12, &device);
            let y = projector.forward(x.clone());
            assert_eq!(y.dims(), [2, 5, 12]);
            let doubled = projector.forward(x.clone() * 2.0);
            (doubled - y * 2.0).abs().max().into_scalar::<f32>()
        };
        assert!(curved(ProjectorConfig::Linear) < 1e-6);
        assert!(curved(ProjectorConfig::MlpGelu(2)) > 1e-6);
        assert_eq!(ProjectorConfig::MlpGelu(3).init(8, 12, &device).layers.len(), 3);
    }
}
