use burn::tensor::Tensor;

use super::{Llm, TokenBatch};
use crate::pass::{Pass, Site};

impl Llm {
    /// Hidden states of whole texts before the final norm, step by step.
    ///
    /// # Shapes
    /// - inputs_embeds: `[batch, len, hidden]`, output the same
    pub fn walk<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        inputs_embeds: P::Var,
        tokens: &TokenBatch,
    ) -> P::Var {
        let context = self.context(tokens);
        let mut hidden = inputs_embeds;
        for (block, layer) in self.layers.iter().enumerate() {
            let context = context.clone();
            let step = move |x: &[Tensor<3>]| layer.up_to_last(x[0].clone(), &context, None);
            hidden = pass.run_residual(Site::DecoderBlock(block), &[hidden], step);
        }
        hidden
    }
}
