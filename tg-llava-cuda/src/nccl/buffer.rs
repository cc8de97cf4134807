use burn::tensor::Tensor;
use burn_cubecl::Cube;
use burn_cubecl::tensor::CubeTensor;

use crate::device::resolve;

/// The buffer of a flat tensor without graph on a CUDA device. What is still to be computed for it is enqueued before.
///
/// # Errors
/// A text where the tensor is anything else.
pub fn buffer(tensor: Tensor<1>) -> Result<CubeTensor, String> {
    let tensor = resolve(tensor.try_into_primitive::<Cube>().map_err(|error| format!("{error:?}"))?)?;
    match tensor.meta.shape().num_dims() == 1 && tensor.is_contiguous() {
        true => Ok(tensor),
        false => Err("NCCL needs flat, contiguous tensors".into()),
    }
}
