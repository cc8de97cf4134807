//! The memory behind a Burn tensor.

use burn::tensor::Tensor;
#[cfg(feature = "fusion")]
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{Cube, CubeDevice};

/// The buffer of a flat tensor without graph on a CUDA device. What is still to be computed for it is enqueued before.
///
/// # Errors
/// A text where the tensor is anything else.
pub fn buffer(tensor: Tensor<1>) -> Result<CubeTensor, String> {
    let primitive = tensor.try_into_primitive::<Cube>().map_err(|error| format!("{error:?}"))?;
    #[cfg(feature = "fusion")]
    let primitive = {
        let client = primitive.client.clone();
        client.resolve_tensor_float::<CubeBackend>(primitive)
    };
    let flat = primitive.meta.shape().num_dims() == 1 && primitive.is_contiguous();
    match (&primitive.device, flat) {
        (CubeDevice::Cuda(_), true) => Ok(primitive),
        (device, _) => Err(format!("NCCL needs flat, contiguous tensors on CUDA, not one on {device:?}")),
    }
}
