//! Thin numeric layers that the whole model shares: one place to fix numerics and to swap kernels.
//!
//! Statistics (norms, softmax, rotary tables, loss) are computed in f32 whatever the compute dtype, as
//! the reference does and because Burn's half-precision versions round in between.

mod activation;
mod attention;
mod block_linear;
mod cast;
mod encoder;
mod kernels;
mod kv_cache;
mod lora;
mod loss;
mod mask;
mod matrix;
mod mlp;
mod norm;
mod residual;
mod rotary;
mod token_table;
mod vendor;

pub use activation::Activation;
pub use attention::{attention, attention_weights, merge_heads, split_heads};
pub use block_linear::BlockLinear;
pub use cast::cast_to;
pub use encoder::{EncoderAttention, EncoderLayer, EncoderLayerConfig};
pub(crate) use kernels::{among_workers, join};
pub use kv_cache::{CachedTexts, KvCache, LayerTexts};
pub use lora::LoraBranch;
pub use loss::{IGNORE_INDEX, LossError, LossTargets, cross_entropy, cross_entropy_sum};
pub use mask::{causal_bias, combine_bias, key_padding_bias};
pub use matrix::Matrix;
pub use mlp::{GatedMlp, GatedMlpConfig, Mlp, MlpConfig};
pub use norm::{layer_norm, rms_norm};
pub use residual::Residual;
pub use rotary::{RopeScaling, RotaryConfig, RotaryTables, apply_rotary};
pub use token_table::TokenTable;
pub use vendor::{VendorProducts, use_vendor_products};

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, module};

use crate::quant::ggml::GgmlType;

/// A linear layer initialised like the reference's transformers: `N(0, std)` weights and zero bias.
pub fn linear(d_input: usize, d_output: usize, bias: bool, std: f64, device: &Device) -> Linear {
    let normal = Initializer::Normal { mean: 0.0, std };
    let mut layer =
        LinearConfig::new(d_input, d_output).with_bias(bias).with_initializer(normal).init(device);
    layer.bias = bias.then(|| Initializer::Zeros.init([d_output], device));
    layer
}

/// Texts that may go through products and attention one behind the other, so that each row has the bits that it has in
/// its text alone and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsAlike {
    /// At most so many texts of one row.
    pub few: usize,
    /// Any number of texts of at least so many rows.
    pub many: usize,
    /// Pieces of at least so many rows of a longer text.
    pub piece: usize,
}

impl RowsAlike {
    /// What a backend has that sums in an order which is its own affair: no limit.
    pub const ANY: Self = Self { few: usize::MAX, many: 0, piece: 0 };

    /// What holds for both.
    pub fn and(self, other: Self) -> Self {
        Self {
            few: self.few.min(other.few),
            many: self.many.max(other.many),
            piece: self.piece.max(other.piece),
        }
    }
}

/// The texts that may go through a layer with `weight` together; [`RowsAlike::ANY`] where nothing is known.
pub fn rows_alike(weight: &Tensor<2>) -> RowsAlike {
    kernels::rows_alike(weight).unwrap_or(RowsAlike::ANY)
}

/// `a + b`, of one shape.
pub(crate) fn add<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    match kernels::add(&a, &b) {
        Some(sum) => sum,
        None => a + b,
    }
}

/// `x W + bias`.
pub fn apply_linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    multiply(x, layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()))
}

/// `x weight + bias` by whoever does it best.
fn multiply<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    kernels::linear(&x, &weight, bias.as_ref())
        .or_else(|| vendor::linear(&x, &weight, bias.as_ref()))
        .unwrap_or_else(|| module::linear(x, weight, bias))
}

/// Rows of floats in a block format, in all threads where the kernels are built in.
pub(crate) fn quantise(format: GgmlType, values: &[f32], row_len: usize) -> Vec<u8> {
    kernels::quantise(format, values, row_len)
}
