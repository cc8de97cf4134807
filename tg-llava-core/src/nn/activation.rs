use burn::tensor::{
    Tensor,
    activation::{gelu, gelu_approximate, relu, sigmoid, silu},
};

use super::kernels;
use crate::error::{Error, Result};

/// Activation functions that the supported checkpoints name in `hidden_act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`: OpenAI CLIP's approximation.
    QuickGelu,
    /// Exact GELU with the error function.
    Gelu,
    /// GELU by tanh (`gelu_pytorch_tanh`): SigLIP.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// The activation that a config.json calls `name`.
    ///
    /// # Errors
    /// [`Error::Config`] where the name is unknown.
    pub fn from_hf(name: &str) -> Result<Self> {
        match name {
            "quick_gelu" => Ok(Self::QuickGelu),
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Self::GeluTanh),
            "silu" | "swish" => Ok(Self::Silu),
            "relu" => Ok(Self::Relu),
            other => Err(Error::Config(format!(
                "hidden_act = {other:?} is not supported; known: quick_gelu, gelu, gelu_pytorch_tanh, silu, relu"
            ))),
        }
    }

    /// The name in config.json.
    pub fn hf_name(self) -> &'static str {
        match self {
            Self::QuickGelu => "quick_gelu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_pytorch_tanh",
            Self::Silu => "silu",
            Self::Relu => "relu",
        }
    }

    /// Applies the function to every element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        let fused = match self {
            Self::QuickGelu => kernels::quick_gelu(&x),
            Self::Silu => kernels::silu(&x),
            _ => None,
        };
        if let Some(y) = fused {
            return y;
        }
        match self {
            Self::QuickGelu => x.clone() * sigmoid(x * 1.702),
            Self::Gelu => exact_gelu(x),
            Self::GeluTanh => gelu_approximate(x),
            Self::Silu => silu(x),
            Self::Relu => relu(x),
        }
    }
}

/// `x / 2 * (1 + erf(x / sqrt 2))`.
///
/// Where gradients are recorded it is written out: the derivative that several backends have for their own
/// GELU is that of the tanh approximation, which is off by a thousandth.
fn exact_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.device().is_autodiff() {
        x.clone() * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5
    } else {
        gelu(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_match_the_definitions() {
        let device = burn::tensor::Device::flex();
        let at = |act: Activation, x: f32| -> f32 {
            act.forward(Tensor::<1>::from_floats([x], &device)).into_scalar()
        };
        let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} != {b}");
        close(at(Activation::QuickGelu, 1.0), 1.0 / (1.0 + (-1.702f32).exp()));
        close(at(Activation::Gelu, 1.0), 0.841_344_8);
        close(at(Activation::GeluTanh, 1.0), 0.841_192);
        close(at(Activation::Silu, -2.0), -2.0 / (1.0 + 2f32.exp()));
        close(at(Activation::Relu, -2.0), 0.0);
    }

    #[test]
    fn names_round_trip_and_unknown_is_named() {
        for act in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            assert_eq!(Activation::from_hf(act.hf_name()).unwrap(), act);
        }
        assert!(Activation::from_hf("mish2").unwrap_err().to_string().contains("mish2"));
    }
}
