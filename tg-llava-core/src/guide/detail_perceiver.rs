use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::Perceiver;
use crate::config::DetailPerceiverConfig;
use crate::nn::{Activation, Mlp, MlpConfig, key_padding_bias, rms_norm};
use crate::pass::{Eager, Pass, Site};

/// Pulls question-related detail out of four crops (`mm_patch_encoder`; the paper's TG-DP, section 3.3).
///
/// The first perceiver layer reads the text, so that the latents know the question; the later ones read
/// the crops.
#[derive(Module, Debug)]
pub struct DetailPerceiver {
    /// One vector a crop position, `[num_positions, hidden]`.
    pub position_embedding: Embedding,
    /// On the crops' features.
    pub pre_mlp: Mlp,
    /// Text width to vision width.
    pub resize_linear: Linear,
    /// Latents read text and crops.
    pub perceiver: Perceiver,
    /// Vision width to decoder width.
    pub proj: Mlp,
}

impl DetailPerceiverConfig {
    /// A randomly initialised perceiver.
    pub fn init(&self, device: &Device) -> DetailPerceiver {
        let width = self.hidden_size;
        let mlp = |d_hidden: usize, d_output: usize| {
            MlpConfig {
                d_input: width,
                d_hidden,
                d_output,
                activation: Activation::Gelu,
                initializer_range: 0.02,
            }
            .init(device)
        };
        DetailPerceiver {
            position_embedding: EmbeddingConfig::new(self.num_positions, width)
                .with_initializer(Initializer::Normal { mean: 0.0, std: 0.02 })
                .init(device),
            pre_mlp: mlp(width, width),
            resize_linear: LinearConfig::new(self.text_hidden_size, width).init(device),
            perceiver: Perceiver::init(self, device),
            proj: mlp(self.output_size, self.output_size),
        }
    }
}

impl DetailPerceiver {
    /// The crops' features as the perceiver reads them.
    ///
    /// # Shapes
    /// - crops: `[batch, num_positions, hidden]`, output the same
    pub fn embed_crops(&self, crops: Tensor<3>) -> Tensor<3> {
        let positions = self.position_embedding.weight.val().unsqueeze::<3>();
        self.pre_mlp.forward(crops + positions)
    }

    /// What layer 0 may see: real text and all latents.
    ///
    /// # Shapes
    /// - text_mask: `batch` rows of `text_len`
    /// - output: `[batch, 1, 1, text_len + num_latents]`; `None` where everything is visible
    pub fn text_bias(&self, text_mask: &[Vec<bool>]) -> Option<Tensor<4>> {
        if text_mask.iter().flatten().all(|&visible| visible) {
            return None;
        }
        let [num_latents, _] = self.perceiver.latents.dims();
        let with_latents: Vec<Vec<bool>> = text_mask
            .iter()
            .map(|row| row.iter().copied().chain(std::iter::repeat_n(true, num_latents)).collect())
            .collect();
        Some(key_padding_bias(&with_latents, &self.perceiver.latents.device()))
    }

    /// Detail tokens of a batch.
    ///
    /// # Shapes
    /// - crops: `[batch, num_positions, hidden]`, the four crops' features in the order top-left, top-right,
    ///   bottom-left, bottom-right
    /// - text: `[batch, text_len, text_hidden]`, hidden where `text_mask` is false
    /// - output: `[batch, num_latents, llm_hidden]`
    pub fn forward(&self, crops: Tensor<3>, text: Tensor<3>, text_mask: &[Vec<bool>]) -> Tensor<3> {
        self.walk(&mut Eager, crops, text, text_mask)
    }

    /// [`Self::forward`], step by step.
    pub fn walk<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        crops: P::Var,
        text: P::Var,
        text_mask: &[Vec<bool>],
    ) -> P::Var {
        let bias = self.text_bias(text_mask);
        let start = pass.run(Site::DetailEmbed, &[crops, text], |x| {
            let batch = x[0].dims()[0];
            let text = self.resize_linear.forward(x[1].clone());
            vec![self.embed_crops(x[0].clone()), text, self.perceiver.queries(batch)]
        });
        let [crops, text, mut latents] = [start[0].clone(), start[1].clone(), start[2].clone()];
        for (index, layer) in self.perceiver.layers.iter().enumerate() {
            latents = match index {
                0 => layer.walk(pass, index, latents, text.clone(), bias.clone()),
                _ => layer.walk(pass, index, latents, crops.clone(), None),
            };
        }
        let norm = &self.perceiver.norm;
        let latents = pass.run_one(Site::DetailNorm, &[latents], |x| rms_norm(norm, x[0].clone()));
        pass.run_one(Site::DetailTokens, &[latents], |x| self.proj.forward(x[0].clone()))
    }
}
