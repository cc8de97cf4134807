use burn::module::Param;
use burn::nn::{LayerNorm, RmsNorm};
use burn::tensor::{DType, Tensor, module};

use super::cast_to;

/// Root-mean-square norm over the last axis, in f32 from the input to the scaled result.
///
/// # Shapes
/// - x: `[..., d_model]`, output the same shape and dtype
pub fn rms_norm<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    if let Some(y) = super::kernels::rms_norm(&x, &norm.gamma.val(), norm.epsilon as f32) {
        return y;
    }
    let dtype = x.dtype();
    let x = cast_to(x, DType::F32);
    let rms = (x.clone().square().mean_dim(D - 1) + norm.epsilon).sqrt();
    let gamma = cast_to(norm.gamma.val(), DType::F32);
    cast_to(x / rms * gamma.unsqueeze(), dtype)
}

/// Layer norm over the last axis with statistics and scaling in f32.
///
/// # Shapes
/// - x: `[..., d_model]`, output the same shape and dtype
pub fn layer_norm<const D: usize>(norm: &LayerNorm, epsilon: f64, x: Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    let to_f32 = |p: &Param<Tensor<1>>| cast_to(p.val(), DType::F32);
    let beta = norm.beta.as_ref().map(to_f32);
    cast_to(module::layer_norm(cast_to(x, DType::F32), to_f32(&norm.gamma), beta, epsilon), dtype)
}
