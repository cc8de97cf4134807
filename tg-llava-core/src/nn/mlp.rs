use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use super::{Activation, BlockLinear, apply_linear, join, linear};

/// Sizes of a two-layer perceptron.
#[derive(Debug, Clone, Copy)]
pub struct MlpConfig {
    /// Width of the input.
    pub d_input: usize,
    /// Width between the layers.
    pub d_hidden: usize,
    /// Width of the output.
    pub d_output: usize,
    /// Function between the layers.
    pub activation: Activation,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
}

/// Linear, activation, linear, both with bias.
#[derive(Module, Debug)]
pub struct Mlp {
    /// First layer.
    pub fc1: Linear,
    /// Second layer.
    pub fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl MlpConfig {
    /// A randomly initialised perceptron.
    pub fn init(&self, device: &Device) -> Mlp {
        Mlp {
            fc1: linear(self.d_input, self.d_hidden, true, self.initializer_range, device),
            fc2: linear(self.d_hidden, self.d_output, true, self.initializer_range, device),
            activation: self.activation,
        }
    }
}

impl Mlp {
    /// # Shapes
    /// - x: `[..., d_input]`, output: `[..., d_output]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        apply_linear(&self.fc2, self.activation.forward(apply_linear(&self.fc1, x)))
    }
}

/// Sizes of a gated perceptron.
#[derive(Debug, Clone, Copy)]
pub struct GatedMlpConfig {
    /// Width of input and output.
    pub hidden_size: usize,
    /// Width of the gate.
    pub intermediate_size: usize,
    /// Function on the gate.
    pub activation: Activation,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
}

/// `down(act(gate(x)) * up(x))`, no biases: the feed-forward of Llama, Qwen2 and the perceiver.
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// Gate projection.
    pub gate_proj: BlockLinear,
    /// Value projection.
    pub up_proj: BlockLinear,
    /// Output projection.
    pub down_proj: BlockLinear,
    #[module(skip)]
    activation: Activation,
}

impl GatedMlpConfig {
    /// A randomly initialised perceptron.
    pub fn init(&self, device: &Device) -> GatedMlp {
        let (hidden, inter, std) = (self.hidden_size, self.intermediate_size, self.initializer_range);
        GatedMlp {
            gate_proj: BlockLinear::init(hidden, inter, false, std, device),
            up_proj: BlockLinear::init(hidden, inter, false, std, device),
            down_proj: BlockLinear::init(inter, hidden, false, std, device),
            activation: self.activation,
        }
    }
}

impl GatedMlp {
    /// # Shapes
    /// - x: `[batch, len, hidden_size]`, output the same
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.down_proj.forward(self.before_down(x))
    }

    /// What the output projection reads.
    ///
    /// # Shapes
    /// - x: `[batch, len, hidden_size]`, output: `[batch, len, intermediate_size]`
    pub fn before_down(&self, x: Tensor<3>) -> Tensor<3> {
        let (gate, up) = join(&x, || self.gate_proj.forward(x.clone()), || self.up_proj.forward(x.clone()));
        self.gated(gate, up)
    }

    fn gated(&self, gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
        if self.activation == Activation::Silu
            && let Some(gated) = super::kernels::silu_gate(&gate, &up)
        {
            return gated;
        }
        self.activation.forward(gate) * up
    }
}
