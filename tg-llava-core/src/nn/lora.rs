use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Initializer};
use burn::tensor::{Device, Tensor};

use super::{RowsAlike, multiply, rows_alike};
use crate::config::LoraSize;

/// A low-rank branch beside a frozen linear layer: `scale * B (A dropout(x))` (Hu et al., LoRA, arXiv:2106.09685).
///
/// Both matrices lie as adapter files hold them. Neither the product of the two nor a gradient of its size is ever made.
#[derive(Module, Debug)]
pub struct LoraBranch {
    /// Matrix down, `[rank, d_input]`.
    pub a: Param<Tensor<2>>,
    /// Matrix up, `[d_output, rank]`.
    pub b: Param<Tensor<2>>,
    scale: f64,
    dropout: Dropout,
}

impl LoraBranch {
    /// A branch that adds nothing yet, as PEFT draws it: A uniform within `1 / sqrt(d_input)`, B zero.
    pub fn init([d_input, d_output]: [usize; 2], size: LoraSize, device: &Device) -> Self {
        let bound = 1.0 / (d_input as f64).sqrt();
        Self {
            a: Initializer::Uniform { min: -bound, max: bound }.init([size.rank, d_input], device),
            b: Initializer::Zeros.init([d_output, size.rank], device),
            scale: size.scale,
            dropout: DropoutConfig::new(size.dropout).init(),
        }
    }

    /// Dropout falls where gradients are recorded alone, and follows the device's random seed.
    ///
    /// # Shapes
    /// - x: `[.., d_input]`, output: `[.., d_output]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let low = multiply(self.dropout.forward(x), self.a.val().transpose(), None);
        multiply(low, self.b.val().transpose(), None) * self.scale
    }

    /// The texts that may go through the branch together.
    pub fn rows_alike(&self) -> RowsAlike {
        rows_alike(&self.a.val().transpose()).and(rows_alike(&self.b.val().transpose()))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tolerance};

    use super::*;
    use crate::nn::BlockLinear;

    const SIZE: LoraSize = LoraSize { rank: 2, scale: 0.5, dropout: 0.0 };

    fn layer(size: LoraSize, device: &Device) -> BlockLinear {
        device.seed(3);
        let mut layer = BlockLinear::init(6, 4, true, 0.3, device);
        layer.lora = Some(LoraBranch::init([6, 4], size, device));
        layer
    }

    #[test]
    fn a_fresh_branch_adds_nothing_and_its_matrix_is_within_bounds() {
        let device = Device::flex();
        let mut layer = layer(SIZE, &device);
        let x = Tensor::<2>::random([3, 6], Distribution::Normal(0.0, 1.0), &device);
        let with = layer.forward(x.clone());
        let a = layer.lora.take().unwrap().a.val().into_data().try_to_vec::<f32>().unwrap();
        let bound = 1.0 / 6f32.sqrt();
        assert!(
            a.iter().all(|value| value.abs() <= bound) && a.iter().any(|value| value.abs() > bound / 2.0)
        );
        assert_eq!(with.to_data(), layer.forward(x).to_data());
    }

    #[test]
    fn the_branch_is_the_product_of_its_matrices() {
        let device = Device::flex();
        let mut layer = layer(SIZE, &device);
        let x = Tensor::<2>::random([3, 6], Distribution::Normal(0.0, 1.0), &device);
        let branch = layer.lora.as_mut().unwrap();
        let b = Tensor::random([4, 2], Distribution::Normal(0.0, 1.0), &device);
        branch.b = Param::from_tensor(b.clone());
        let merged = layer.weight.float().unwrap().val() + b.matmul(branch.a.val()).transpose() * 0.5;
        let expected = x.clone().matmul(merged) + layer.bias.as_ref().unwrap().val().unsqueeze();
        let found = layer.forward(x).into_data();
        found.assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn gradients_reach_the_branch_and_dropout_falls_in_training_alone() {
        let device = Device::flex().autodiff();
        let layer = layer(LoraSize { dropout: 0.5, ..SIZE }, &device);
        let x = Tensor::<2>::ones([3, 6], &device);
        let run = |seed: u64| {
            device.seed(seed);
            let branch = layer.lora.as_ref().unwrap();
            let gradients = layer.forward(x.clone()).sum().backward();
            branch.b.val().grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap()
        };
        run(0);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let still = layer.valid();
        let low = |x: Tensor<2>| still.lora.as_ref().unwrap().forward(x).into_data();
        assert_eq!(low(x.clone().inner()), low(x.inner()));
    }
}
