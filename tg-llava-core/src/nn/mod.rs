//! Thin numeric layers that the whole model shares: one place to fix numerics and to swap kernels.
//!
//! Statistics (norms, softmax, rotary tables, loss) are computed in f32 whatever the compute dtype, as
//! the reference does and because Burn's half-precision versions round in between.

mod activation;
mod attention;
mod cast;
mod encoder;
mod kernels;
mod kv_cache;
mod loss;
mod mask;
mod mlp;
mod norm;
mod rotary;

pub use activation::Activation;
pub use attention::{attention, attention_weights, merge_heads, split_heads};
pub use cast::cast_to;
pub use encoder::{EncoderAttention, EncoderLayer, EncoderLayerConfig};
pub use kv_cache::{CachedRows, KvCache, LayerRows};
pub use loss::{IGNORE_INDEX, LossError, LossTargets, cross_entropy};
pub use mask::{causal_bias, combine_bias, key_padding_bias};
pub use mlp::{GatedMlp, GatedMlpConfig, Mlp, MlpConfig};
pub use norm::{layer_norm, rms_norm};
pub use rotary::{RopeScaling, RotaryConfig, RotaryTables, apply_rotary};

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// A linear layer initialised like the reference's transformers: `N(0, std)` weights and zero bias.
pub fn linear(d_input: usize, d_output: usize, bias: bool, std: f64, device: &Device) -> Linear {
    let normal = Initializer::Normal { mean: 0.0, std };
    let mut layer =
        LinearConfig::new(d_input, d_output).with_bias(bias).with_initializer(normal).init(device);
    layer.bias = bias.then(|| Initializer::Zeros.init([d_output], device));
    layer
}

/// Rows of a product with `weight` that are computed to the bit as each alone would be; no limit where the backend
/// sums in an order that is its own affair.
pub fn rows_alike(weight: &Tensor<2>) -> usize {
    kernels::rows_alike(weight).unwrap_or(usize::MAX)
}

/// `x W + bias`.
pub fn apply_linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    if let Some(y) = kernels::matvec(&x, &layer.weight.val(), bias.as_ref()) {
        return y;
    }
    layer.forward(x)
}

/// `x tableᵗ`, as an output head that is the embedding matrix does.
pub fn apply_tied(table: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
    let weight = table.transpose();
    if let Some(y) = kernels::matvec(&x, &weight, None) {
        return y;
    }
    x.matmul(weight)
}
