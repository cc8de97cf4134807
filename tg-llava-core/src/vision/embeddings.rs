use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::{Device, Int, Tensor};

use crate::config::{TowerFamily, VisionTowerConfig};

/// Patches of a picture as tokens: a strided convolution, CLIP's class token before them, learned positions.
#[derive(Module, Debug)]
pub struct VisionEmbeddings {
    /// CLIP's token that stands for the whole picture.
    pub class_embedding: Option<Param<Tensor<1>>>,
    /// One patch to one token.
    pub patch_embedding: Conv2d,
    /// One vector a position.
    pub position_embedding: Embedding,
}

impl VisionEmbeddings {
    pub(super) fn init(config: &VisionTowerConfig, device: &Device) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        let (width, patch) = (config.hidden_size, config.patch_size);
        Self {
            class_embedding: config.has_class_token().then(|| normal.init([width], device)),
            patch_embedding: Conv2dConfig::new([config.num_channels, width], [patch, patch])
                .with_stride([patch, patch])
                .with_bias(config.family == TowerFamily::Siglip)
                .with_initializer(normal.clone())
                .init(device),
            position_embedding: EmbeddingConfig::new(config.num_positions(), width)
                .with_initializer(normal)
                .init(device),
        }
    }

    /// # Shapes
    /// - pixels: `[batch, channels, image_size, image_size]`
    /// - output: `[batch, num_positions, hidden]`
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let batch = pixels.dims()[0];
        let device = pixels.device();
        // [batch, hidden, rows, columns] -> [batch, rows * columns, hidden]
        let patches: Tensor<3> = self.patch_embedding.forward(pixels).flatten::<3>(2, 3).swap_dims(1, 2);
        let tokens = match &self.class_embedding {
            Some(class) => {
                let width = patches.dims()[2];
                let class: Tensor<3> = class.val().reshape([1, 1, width]).expand([batch, 1, width]);
                Tensor::cat(vec![class, patches], 1)
            }
            None => patches,
        };
        let positions = Tensor::<1, Int>::arange(0..tokens.dims()[1] as i64, &device).unsqueeze::<2>();
        tokens + self.position_embedding.forward(positions)
    }
}
