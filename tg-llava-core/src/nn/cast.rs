use burn::tensor::{DType, FloatDType, Tensor};

use super::kernels;

/// `tensor` in `dtype`, untouched where it already is.
///
/// # Panics
/// Where `dtype` is not a float type: a programmer's error.
pub fn cast_to<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    match tensor.dtype() == dtype {
        true => tensor,
        false => kernels::cast(&tensor, dtype).unwrap_or_else(|| tensor.cast(FloatDType::from(dtype))),
    }
}
