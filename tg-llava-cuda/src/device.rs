//! The memory behind a Burn tensor, and the thread that owns a CUDA device.

use burn::backend::tensor::FloatTensor;
#[cfg(feature = "fusion")]
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{Cube, CubeDevice};
use cubecl_server::runtime::Runtime;

/// What runs on the thread of a CUDA device; CubeCL does not name it.
pub type Server = <cubecl_cuda::CudaRuntime as Runtime>::Server;

/// The memory of a tensor on a CUDA device. What is still to be computed for it is enqueued before.
///
/// # Errors
/// A text where it is on another device.
pub fn resolve(tensor: FloatTensor<Cube>) -> Result<CubeTensor, String> {
    #[cfg(feature = "fusion")]
    let tensor = {
        let client = tensor.client.clone();
        client.resolve_tensor_float::<CubeBackend>(tensor)
    };
    match &tensor.device {
        CubeDevice::Cuda(_) => Ok(tensor),
        device => Err(format!("a tensor on {device:?}, not on CUDA")),
    }
}
