use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, module};

use super::{RowsAlike, kernels, linear, rows_alike};

/// A linear layer of a gated block: `x W + bias`. Burn's own, but for what a decoder's matrices may be besides plain floats.
#[derive(Module, Debug)]
pub struct BlockLinear {
    /// Matrix, `[d_input, d_output]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl BlockLinear {
    /// A layer initialised as [`linear`] does it.
    pub fn init(d_input: usize, d_output: usize, bias: bool, std: f64, device: &Device) -> Self {
        let Linear { weight, bias } = linear(d_input, d_output, bias, std, device);
        Self { weight, bias }
    }

    /// # Shapes
    /// - x: `[.., d_input]`, output: `[.., d_output]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        match kernels::linear(&x, &self.weight.val(), bias.as_ref()) {
            Some(y) => y,
            None => module::linear(x, self.weight.val(), bias),
        }
    }

    /// The texts that may go through the layer together.
    pub fn rows_alike(&self) -> RowsAlike {
        rows_alike(&self.weight.val())
    }
}
