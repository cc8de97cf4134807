use burn::tensor::{DType, FloatDType, Tensor};

/// `tensor` in `dtype`, untouched where it already is.
///
/// # Panics
/// Where `dtype` is not a float type: a programmer's error.
pub fn cast_to<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(FloatDType::from(dtype)) }
}
