use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use super::matrix::{apply_quantised, quantised_rows_alike};
use super::{LoraBranch, Matrix, RowsAlike, kernels, linear, multiply, rows_alike};

/// A linear layer of the decoder: `x W + bias`. Burn's own, but for what a decoder's matrices may be besides plain floats.
#[derive(Module, Debug)]
pub struct BlockLinear {
    /// Matrix, `[d_input, d_output]` where it is floats.
    pub weight: Matrix,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// What is added to the product, where an adapter lies over the layer.
    pub lora: Option<LoraBranch>,
}

impl BlockLinear {
    /// A layer initialised as [`linear`] does it.
    pub fn init(d_input: usize, d_output: usize, bias: bool, std: f64, device: &Device) -> Self {
        let Linear { weight, bias } = linear(d_input, d_output, bias, std, device);
        Self { weight: Matrix::Float(weight), bias, lora: None }
    }

    /// # Shapes
    /// - x: `[.., d_input]`, output: `[.., d_output]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match &self.lora {
            None => self.product(x),
            Some(branch) => self.product(x.clone()) + branch.forward(x),
        }
    }

    /// A number with the gradients of `sum(forward(x) * gradient)` but not its value; `None` where it would take the product all the
    /// same.
    pub fn against<const D: usize>(&self, x: &Tensor<D>, gradient: &Tensor<D>) -> Option<Tensor<1>> {
        let (Matrix::Float(weight), None) = (&self.weight, &self.bias) else { return None };
        let product = kernels::linear_against(x, &weight.val(), gradient)?;
        Some(match &self.lora {
            None => product,
            Some(branch) => product + (branch.forward(x.clone()) * gradient.clone()).sum(),
        })
    }

    /// What the layer gives without an adapter.
    fn product<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        match &self.weight {
            Matrix::Float(weight) => multiply(x, weight.val(), bias),
            Matrix::Quantised(matrix) => apply_quantised(matrix, x, bias),
        }
    }

    /// The texts that may go through the layer together.
    pub fn rows_alike(&self) -> RowsAlike {
        let alike = match &self.weight {
            Matrix::Float(weight) => rows_alike(&weight.val()),
            Matrix::Quantised(matrix) => quantised_rows_alike(matrix),
        };
        self.lora.as_ref().map_or(alike, |branch| alike.and(branch.rows_alike()))
    }
}
