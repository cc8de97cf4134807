//! The one forward pass of the model, written for whoever walks it.
//!
//! Towers, bridges and decoder each have a `walk` that hands their steps to a [`Pass`]: [`Eager`] computes them, [`Trace`] shows
//! what they give to an observer, and a trainer records them on a tape that can forget and repeat them.

mod site;
mod trace;

use burn::tensor::Tensor;

pub use site::Site;
pub use trace::Trace;

use crate::nn::Residual;

/// Walks the model step by step. `'m` is how long the steps may borrow the model.
pub trait Pass<'m> {
    /// What stands for a tensor between two steps.
    type Var: Clone;

    /// Runs the step at `at`. `step` must depend on its inputs, the model and the device's random seed alone: a pass may run it
    /// more than once.
    fn run(
        &mut self,
        at: Site,
        inputs: &[Self::Var],
        step: impl Fn(&[Tensor<3>]) -> Vec<Tensor<3>> + 'm,
    ) -> Vec<Self::Var>;

    /// [`Self::run`] for a step with one output.
    fn run_one(
        &mut self,
        at: Site,
        inputs: &[Self::Var],
        step: impl Fn(&[Tensor<3>]) -> Tensor<3> + 'm,
    ) -> Self::Var {
        let mut outputs = self.run(at, inputs, move |inputs| vec![step(inputs)]);
        outputs.remove(0)
    }

    /// [`Self::run_one`] for a step that gives its end uncomputed, since a pass that runs it again to go back does not need the end.
    fn run_residual(
        &mut self,
        at: Site,
        inputs: &[Self::Var],
        step: impl Fn(&[Tensor<3>]) -> Residual<'m> + 'm,
    ) -> Self::Var {
        self.run_one(at, inputs, move |inputs| step(inputs).sum())
    }
}

/// Computes each step as it comes and keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Eager;

impl<'m> Pass<'m> for Eager {
    type Var = Tensor<3>;

    fn run(
        &mut self,
        _at: Site,
        inputs: &[Tensor<3>],
        step: impl Fn(&[Tensor<3>]) -> Vec<Tensor<3>> + 'm,
    ) -> Vec<Tensor<3>> {
        step(inputs)
    }
}
