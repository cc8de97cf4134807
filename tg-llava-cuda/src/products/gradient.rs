//! The gradient of a product that Burn did not compute.

use std::fmt::Debug;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, binary};

/// Who computes products of matrices of a backend.
pub trait Product<B: Backend>: Debug + Clone + Copy + Send + 'static {
    /// `lhs rhs`, both `[rows, cols]` in any layout.
    fn product(self, lhs: FloatTensor<B>, rhs: FloatTensor<B>) -> FloatTensor<B>;
}

/// A product whose gradients are computed by `P` as well.
pub fn recorded<B: Backend, P: Product<B>>(
    by: P,
    lhs: FloatTensor<Autodiff<B>>,
    rhs: FloatTensor<Autodiff<B>>,
) -> FloatTensor<Autodiff<B>> {
    let (lhs_tracked, rhs_tracked) = (lhs.is_tracked(), rhs.is_tracked());
    let nodes = [lhs.node(), rhs.node()];
    match Recorded(by).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            // Each gradient needs the other operand.
            let kept_lhs = rhs_tracked.then(|| prep.checkpoint(&lhs));
            let kept_rhs = lhs_tracked.then(|| prep.checkpoint(&rhs));
            prep.finish((kept_lhs, kept_rhs), by.product(lhs.into_primitive(), rhs.into_primitive()))
        }
        OpsKind::UnTracked(prep) => prep.finish(by.product(lhs.into_primitive(), rhs.into_primitive())),
    }
}

#[derive(Debug)]
struct Recorded<P>(P);

impl<B: Backend, P: Product<B>> Backward<B, 2> for Recorded<P> {
    type State = (Option<NodeId>, Option<NodeId>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (lhs, rhs) = ops.state;
        let lhs: Option<FloatTensor<B>> = lhs.map(|lhs| checkpointer.retrieve_node_output(lhs));
        let rhs: Option<FloatTensor<B>> = rhs.map(|rhs| checkpointer.retrieve_node_output(rhs));
        let Self(by) = self;
        let missing = "kept while the graph was recorded";
        binary::<B, _, _>(
            ops.parents,
            ops.node,
            grads,
            |grad| by.product(grad, B::float_transpose(rhs.expect(missing))),
            |grad| by.product(B::float_transpose(lhs.expect(missing)), grad),
        );
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::{Device, Tensor, Tolerance};

    use super::super::layout::tests::by_columns;
    use super::super::layout::{Plan, View};
    use super::*;

    /// cuBLAS's reading of memory, on the CPU.
    #[derive(Debug, Clone, Copy)]
    struct ByColumns;

    impl Product<Flex> for ByColumns {
        fn product(self, lhs: FloatTensor<Flex>, rhs: FloatTensor<Flex>) -> FloatTensor<Flex> {
            let view = |tensor: &FloatTensor<Flex>| {
                let (shape, strides) = (tensor.layout().shape(), tensor.layout().strides());
                let strides = [strides[0], strides[1]].map(|stride| stride as usize);
                (View::of([shape[0], shape[1]], strides).expect("lines"), tensor.layout().start_offset())
            };
            let ((lhs_view, lhs_start), (rhs_view, rhs_start)) = (view(&lhs), view(&rhs));
            let plan = Plan::new(lhs_view, rhs_view);
            let (lhs, rhs): (&[f32], &[f32]) = (lhs.storage(), rhs.storage());
            let values = by_columns(plan, &rhs[rhs_start..], &lhs[lhs_start..]);
            let data = burn::tensor::TensorData::new(values, [plan.d.cols, plan.d.rows]);
            Tensor::<2>::from_data(data, &Device::flex()).try_into_primitive::<Flex>().expect("flex")
        }
    }

    fn random(shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::random(shape, burn::tensor::Distribution::Uniform(-1.0, 1.0), device)
    }

    #[test]
    fn product_and_gradients_are_those_of_burn() {
        let device = Device::flex().autodiff();
        device.seed(7);
        // As files hold weights, and as the trainer lays them out.
        for transposed in [true, false] {
            let x = random([6, 4], &device).require_grad();
            let weight =
                if transposed { random([5, 4], &device) } else { random([4, 5], &device) }.require_grad();
            // Of each graph its own.
            let used = || if transposed { weight.clone().transpose() } else { weight.clone() };
            let seed = random([6, 5], &device).inner();
            let seed = Tensor::from_inner(seed);

            let by_burn = x.clone().matmul(used());
            let grads = (by_burn.clone() * seed.clone()).sum().backward();
            let wanted = [x.grad(&grads).unwrap(), weight.grad(&grads).unwrap()];

            let primitive = |tensor: Tensor<2>| {
                tensor.try_into_primitive::<Autodiff<Flex>>().expect("a recording device")
            };
            let ours = recorded::<Flex, _>(ByColumns, primitive(x.clone()), primitive(used()));
            let ours = Tensor::<2>::from_primitive::<Autodiff<Flex>>(ours);
            let tolerance = Tolerance::absolute(1e-5);
            ours.to_data().assert_approx_eq::<f32>(&by_burn.to_data(), tolerance);
            let grads = (ours * seed).sum().backward();
            let found = [x.grad(&grads).unwrap(), weight.grad(&grads).unwrap()];
            for (found, wanted) in found.into_iter().zip(wanted) {
                found.to_data().assert_approx_eq::<f32>(&wanted.to_data(), tolerance);
            }
        }
    }

    #[test]
    fn a_frozen_weight_has_no_gradient() {
        let device = Device::flex().autodiff();
        let (x, weight) = (random([3, 4], &device).require_grad(), random([4, 2], &device));
        let primitive = |tensor: &Tensor<2>| {
            tensor.clone().try_into_primitive::<Autodiff<Flex>>().expect("a recording device")
        };
        let y = recorded::<Flex, _>(ByColumns, primitive(&x), primitive(&weight));
        let grads = Tensor::<2>::from_primitive::<Autodiff<Flex>>(y).sum().backward();
        assert!(x.grad(&grads).is_some());
        assert!(weight.grad(&grads).is_none());
    }
}
