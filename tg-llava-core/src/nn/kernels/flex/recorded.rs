//! Operations of our own on tensors that gradients are recorded for.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::FlexTensor;

/// How gradients go back through an operation of `N` inputs: what is kept of it until then.
pub(super) trait Derivative<const N: usize>: Clone + Debug + Send + 'static {
    /// Gradients of the inputs, at least of those that are `wanted`; `gradient` is that of the output.
    fn gradients(self, gradient: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

/// An input of a recorded operation.
pub(super) struct Input(FloatTensor<Autodiff<Flex>>);

impl Input {
    /// `None` on a device that records nothing, on another backend, and in half precision, which nobody trains in on a CPU.
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        if tensor.dtype() != DType::F32 || !tensor.device().is_autodiff() {
            return None;
        }
        tensor.clone().try_into_primitive::<Autodiff<Flex>>().ok().map(Self)
    }

    /// The backend's own tensor.
    pub fn values(&self) -> FlexTensor {
        self.0.primitive().clone()
    }

    /// Whether a gradient will be wanted.
    pub fn is_tracked(&self) -> bool {
        self.0.is_tracked()
    }
}

/// The inputs of an operation; `None` where nothing is to be recorded, or not here.
pub(super) fn inputs<const N: usize>(found: [Option<Input>; N]) -> Option<[Input; N]> {
    let found: Vec<Input> = found.into_iter().collect::<Option<_>>()?;
    if !found.iter().any(Input::is_tracked) {
        return None;
    }
    found.try_into().ok()
}

/// `output`, computed without a graph, on the graph of `inputs`.
pub(super) fn record<F: Derivative<N>, const N: usize, const D: usize>(
    inputs: [Input; N],
    derivative: F,
    output: Tensor<D>,
) -> Option<Tensor<D>> {
    let output = output.try_into_primitive::<Flex>().ok()?;
    let nodes = inputs.each_ref().map(|input| input.0.node());
    let prep = Step(PhantomData::<F>).prepare::<NoCheckpointing>(nodes).compute_bound().stateful();
    let output = match prep {
        OpsKind::Tracked(prep) => prep.finish(derivative, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    Some(Tensor::from_primitive::<Autodiff<Flex>>(output))
}

/// Burn's view of a derivative.
#[derive(Debug)]
struct Step<F>(PhantomData<F>);

impl<F: Derivative<N>, const N: usize> Backward<Flex, N> for Step<F> {
    type State = F;

    fn backward(self, ops: Ops<F, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Ops { parents, node, state } = ops;
        let gradient = grads.consume::<Flex>(&node);
        let wanted = parents.each_ref().map(Option::is_some);
        for (parent, gradient) in parents.into_iter().zip(state.gradients(gradient, wanted)) {
            if let Some((parent, gradient)) = parent.zip(gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
