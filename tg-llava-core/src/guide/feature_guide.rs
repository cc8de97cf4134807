use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::QFormer;
use crate::config::FeatureGuideConfig;
use crate::pass::{Eager, Pass, Site};

/// Turns the question into a mask on the vision features (`mm_cross_attn`; the paper's TG-FOM, section 3.2).
///
/// Learned latents, one a vision token, read the pooled text through a Q-Former. A last layer that starts
/// at zero makes the untrained guide change nothing.
#[derive(Module, Debug)]
pub struct FeatureGuide {
    /// Latents, `[1, num_vision_tokens, hidden]`.
    pub query_tokens: Param<Tensor<3>>,
    /// Text width to vision width.
    pub resize_linear: Linear,
    /// Latents read the text.
    pub qformer: QFormer,
    /// Zero at initialisation.
    pub zero_layer: Linear,
}

impl FeatureGuideConfig {
    /// A randomly initialised guide whose output is zero.
    pub fn init(&self, device: &Device) -> FeatureGuide {
        let width = self.hidden_size;
        FeatureGuide {
            query_tokens: Initializer::Normal { mean: 0.0, std: 0.02 }
                .init([1, self.num_query_tokens, width], device),
            resize_linear: LinearConfig::new(self.text_hidden_size, self.encoder_width).init(device),
            qformer: QFormer::init(self, device),
            zero_layer: LinearConfig::new(width, width).with_initializer(Initializer::Zeros).init(device),
        }
    }
}

impl FeatureGuide {
    /// The mask that is added to the vision features.
    ///
    /// # Shapes
    /// - pooled: `[batch, text_hidden]`
    /// - output: `[batch, num_vision_tokens, hidden]`
    pub fn forward(&self, pooled: Tensor<2>) -> Tensor<3> {
        self.walk(&mut Eager, pooled.unsqueeze_dim(1))
    }

    /// [`Self::forward`], step by step.
    ///
    /// # Shapes
    /// - pooled: `[batch, 1, text_hidden]`
    pub fn walk<'m, P: Pass<'m>>(&'m self, pass: &mut P, pooled: P::Var) -> P::Var {
        let start = pass.run(Site::GuideEmbed, &[pooled], |x| {
            let text = self.text(x[0].clone().squeeze_dim(1));
            let queries = self.queries(text.dims()[0]);
            vec![self.qformer.embed(queries), text]
        });
        let [mut latents, text] = [start[0].clone(), start[1].clone()];
        for (index, layer) in self.qformer.layers.iter().enumerate() {
            latents = layer.walk(pass, index, latents, &text);
        }
        pass.run_one(Site::GuideMask, &[latents], |x| self.zero_layer.forward(x[0].clone()))
    }

    /// The one key that the latents read.
    ///
    /// # Shapes
    /// - pooled: `[batch, text_hidden]`
    /// - output: `[batch, 1, encoder_width]`
    pub fn text(&self, pooled: Tensor<2>) -> Tensor<3> {
        self.resize_linear.forward(pooled).unsqueeze_dim::<3>(1)
    }

    /// The latents, once a sample.
    pub fn queries(&self, batch: usize) -> Tensor<3> {
        let queries = self.query_tokens.val();
        let [_, count, width] = queries.dims();
        queries.expand([batch, count, width])
    }
}
