use burn::tensor::Tensor;

use super::{Pass, Site};

/// Computes each step and shows what it gave to an observer.
///
/// ```
/// use tg_llava_core::burn::tensor::Tensor;
/// use tg_llava_core::pass::{Site, Trace};
///
/// # fn masks(model: &tg_llava_core::model::TgLlava, batch: &tg_llava_core::model::ModelBatch) -> tg_llava_core::Result<()> {
/// // The mask that the question lays on the picture's features.
/// let mut masks = Vec::new();
/// let mut trace = Trace::new(|at, outputs: &[Tensor<3>]| {
///     if at == Site::GuideMask {
///         masks.push(outputs[0].clone());
///     }
/// });
/// model.walk(&mut trace, batch, &model.plan(batch)?)?;
/// # Ok(())
/// # }
/// ```
pub struct Trace<F> {
    observer: F,
}

impl<F: FnMut(Site, &[Tensor<3>])> Trace<F> {
    /// A pass that calls `observer` after each step with its outputs.
    pub fn new(observer: F) -> Self {
        Self { observer }
    }
}

impl<'m, F: FnMut(Site, &[Tensor<3>])> Pass<'m> for Trace<F> {
    type Var = Tensor<3>;

    fn run(
        &mut self,
        at: Site,
        inputs: &[Tensor<3>],
        step: impl Fn(&[Tensor<3>]) -> Vec<Tensor<3>> + 'm,
    ) -> Vec<Tensor<3>> {
        let outputs = step(inputs);
        (self.observer)(at, &outputs);
        outputs
    }
}
