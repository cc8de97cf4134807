use burn::tensor::Tensor;

use super::{BlockLinear, add};

/// The end of a block, before it is computed: `base + last(input)`.
#[derive(Debug, Clone)]
pub struct Residual<'m> {
    /// `[batch, len, hidden]`.
    pub base: Tensor<3>,
    /// `[batch, len, d_input]`.
    pub input: Tensor<3>,
    /// From `d_input` to `hidden`.
    pub last: &'m BlockLinear,
}

impl Residual<'_> {
    /// `base + last(input)`, `[batch, len, hidden]`.
    pub fn sum(self) -> Tensor<3> {
        add(self.base, self.last.forward(self.input))
    }

    /// A number with the gradients of `sum(self.sum() * gradient)`, for going back. Its value is nobody's affair: where a backend can, the
    /// product is left out.
    pub fn against(self, gradient: Tensor<3>) -> Tensor<1> {
        match self.last.against(&self.input, &gradient) {
            Some(product) => (self.base * gradient).sum() + product,
            None => (self.sum() * gradient).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};

    use super::*;
    use crate::config::LoraSize;
    use crate::nn::LoraBranch;

    /// To the bit, so that a pass may go back in either way.
    #[test]
    fn the_product_that_is_left_out_is_not_missed() {
        let device = Device::flex().autodiff();
        device.seed(5);
        let plain = BlockLinear::init(6, 4, false, 0.3, &device);
        let mut adapted = plain.clone();
        let size = LoraSize { rank: 2, scale: 0.5, dropout: 0.0 };
        adapted.lora = Some(LoraBranch::init([6, 4], size, &device));
        let with_bias = BlockLinear::init(6, 4, true, 0.3, &device);
        let random = |width: usize| {
            Tensor::<3>::random([2, 9, width], Distribution::Normal(0.0, 1.0), &device).inner()
        };
        let [base, input, gradient] = [4, 6, 4].map(random);
        for (last, left_out) in [(&plain, true), (&adapted, true), (&with_bias, false)] {
            let run = |end: &dyn Fn(Residual<'_>, Tensor<3>) -> Tensor<1>| {
                let [base, input] = [&base, &input].map(|x| Tensor::from_inner(x.clone()).require_grad());
                let weight = last.weight.float().unwrap().val();
                let residual = Residual { base: base.clone(), input: input.clone(), last };
                let grads = end(residual, Tensor::from_inner(gradient.clone())).backward();
                let [base, input] = [base, input].map(|x| x.grad(&grads).unwrap().into_data());
                (base, input, weight.grad(&grads).unwrap().into_data())
            };
            let whole = run(&|residual, gradient| (residual.sum() * gradient).sum());
            assert_eq!(run(&|residual, gradient| residual.against(gradient)), whole);
            let input = Tensor::from_inner(input.clone()).require_grad();
            assert_eq!(last.against(&input, &Tensor::from_inner(gradient.clone())).is_some(), left_out);
        }
    }
}
