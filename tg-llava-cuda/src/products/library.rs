//! cuBLASLt's calls.
#![expect(unsafe_code, reason = "cuBLASLt is a C library; each block says why it holds")]

use std::collections::HashMap;
use std::ffi::c_void;

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl_common::device_handle::DeviceHandle;
use cubecl_environment::stream::StreamId;
use cubecl_server::command::DeviceStream;
use cubecl_server::server::ServerStorage;
use cubecl_server::stream::WriteScoped;
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::sys::CUstream;

use super::layout::{Operand, Plan, View};
use crate::device::Server;

/// Bytes that cuBLASLt may use besides its operands: NVIDIA's advice for Hopper.
pub const WORKSPACE_BYTES: usize = 32 << 20;

/// Bytes that the addresses of all memory pools are multiples of; parts of a buffer may lie elsewhere.
const MOST_ALIGNED: u64 = 256;

/// cuBLASLt, with the algorithms that it has chosen.
pub struct Library {
    handle: Handle,
    /// Room for its intermediate values.
    workspace: CubeTensor,
    algorithms: HashMap<Key, sys::cublasLtMatmulAlgo_t>,
}

/// What an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    plan: Plan,
    format: Format,
    /// Of the addresses of A, B and D, in bytes.
    aligned: [u32; 3],
}

/// Number formats that are computed with f32 sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Format {
    F16,
    BF16,
}

impl Format {
    fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F16 => Some(Self::F16),
            DType::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    fn data_type(self) -> sys::cudaDataType {
        match self {
            Self::F16 => sys::cudaDataType::CUDA_R_16F,
            Self::BF16 => sys::cudaDataType::CUDA_R_16BF,
        }
    }
}

/// Whether products in `dtype` are cuBLASLt's affair.
pub fn knows(dtype: DType) -> bool {
    Format::of(dtype).is_some()
}

struct Handle(sys::cublasLtHandle_t);

// SAFETY: cuBLASLt's handles may be used from any thread.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `create_handle`, owned here alone, and destroyed once. Where the device has failed there is nothing to free.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

impl Library {
    /// Loads cuBLASLt; to be called on the device's runner thread. `workspace` is [`WORKSPACE_BYTES`] long.
    ///
    /// # Errors
    /// A text where it is missing, or does not start.
    pub fn load(workspace: CubeTensor) -> Result<Self, String> {
        // SAFETY: tries to open shared libraries by cuBLASLt's names, and runs nothing but their initialisers.
        if !unsafe { sys::is_culib_present() } {
            return Err("libcublasLt.so is not there; it comes with the CUDA toolkit, and with Python's wheel nvidia-cublas \
                        (put its folder into LD_LIBRARY_PATH)"
                .into());
        }
        let handle = Handle(result::create_handle().map_err(text)?);
        Ok(Self { handle, workspace, algorithms: HashMap::new() })
    }

    /// Enqueues `lhs rhs` into `out`, whose rows lie one behind the other, behind whatever the device computes for the calling thread.
    ///
    /// # Errors
    /// A text where the matrices do not fit together or into their memory, or cuBLASLt has no algorithm for them.
    pub fn product(
        &mut self,
        device: &DeviceHandle<Server>,
        [lhs, rhs, out]: [&CubeTensor; 3],
    ) -> Result<(), String> {
        let format = Format::of(lhs.dtype).filter(|_| lhs.dtype == rhs.dtype && lhs.dtype == out.dtype);
        let format = format.ok_or("operands of a product must be f16, or bf16, and alike")?;
        let views = [lhs, rhs, out].map(view_of);
        let [Some(lhs_view), Some(rhs_view), Some(out_view)] = views else {
            return Err("a matrix that is neither in rows nor in columns".into());
        };
        let plan = Plan::new(lhs_view, rhs_view);
        // In cuBLAS's order.
        let spans = [rhs_view, lhs_view, out_view].map(|view| (view.span() * lhs.dtype.size()) as u64);
        let bindings = [rhs, lhs, out, &self.workspace].map(|tensor| tensor.handle.clone().binding());
        let Self { handle, algorithms, .. } = self;
        let done = device.submit_blocking(move |server: &mut Server| {
            // CubeCL runs this under the calling thread's stream.
            let id = StreamId::current();
            let mut held = Vec::with_capacity(bindings.len());
            for binding in &bindings {
                held.push(server.get_resource(binding.clone(), id).map_err(|error| error.to_string())?);
            }
            let at = |index: usize| held[index].resource();
            let short = (0..3).find(|&index| at(index).size < spans[index]);
            if let Some(index) = short {
                return Err(format!("{} bytes of memory instead of {}", at(index).size, spans[index]));
            }
            if at(3).size < WORKSPACE_BYTES as u64 {
                return Err(format!("{} bytes of workspace", at(3).size));
            }
            let memory = Memory {
                a: at(0).ptr as *const c_void,
                b: at(1).ptr as *const c_void,
                d: at(2).ptr as *mut c_void,
                workspace: at(3).ptr as *mut c_void,
            };
            let aligned = [0, 1, 2].map(|index| alignment(at(index).ptr));
            let mut streams =
                server.write_streams().resolve(id, bindings.iter()).map_err(|error| error.to_string())?;
            let stream: CUstream = streams.current().signal();
            let key = Key { plan, format, aligned };
            enqueue(handle, key, algorithms, &memory, stream).map_err(text)
        });
        done.map_err(|error| format!("the device's thread failed: {error:?}"))?
    }
}

/// Addresses on the device.
struct Memory {
    a: *const c_void,
    b: *const c_void,
    d: *mut c_void,
    workspace: *mut c_void,
}

fn view_of(tensor: &CubeTensor) -> Option<View> {
    let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
    (shape.num_dims() == 2).then(|| View::of([shape[0], shape[1]], [strides[0], strides[1]]))?
}

/// The power of two that an address is a multiple of.
fn alignment(address: u64) -> u32 {
    1 << (address | MOST_ALIGNED).trailing_zeros()
}

fn enqueue(
    handle: &Handle,
    key: Key,
    algorithms: &mut HashMap<Key, sys::cublasLtMatmulAlgo_t>,
    memory: &Memory,
    stream: CUstream,
) -> Result<(), CublasError> {
    let Key { plan, format, .. } = key;
    let product = Description::new(plan)?;
    let [a, b, d] = [plan.a, plan.b, plan.d].map(|operand| Layout::new(operand, format));
    let (a, b, d) = (a?, b?, d?);
    let algorithm = match algorithms.get(&key) {
        Some(known) => *known,
        None => {
            let wish = Preference::new(key.aligned)?;
            // SAFETY: all descriptors live until the end of this function.
            let found = unsafe {
                result::get_matmul_algo_heuristic(handle.0, product.0, a.0, b.0, d.0, d.0, wish.0)
            }?;
            algorithms.insert(key, found.algo);
            found.algo
        }
    };
    let (one, zero) = (1.0f32, 0.0f32);
    // SAFETY: the caller has checked that the buffers hold what the layouts describe; they stay until the stream is past this call, since
    // CubeCL gives memory back in the stream's order, and the workspace belongs to the library. Descriptors and factors live.
    unsafe {
        result::matmul(
            handle.0,
            product.0,
            (&raw const one).cast(),
            (&raw const zero).cast(),
            memory.a,
            a.0,
            memory.b,
            b.0,
            memory.d,
            d.0,
            memory.d,
            d.0,
            &raw const algorithm,
            memory.workspace,
            WORKSPACE_BYTES,
            stream.cast(),
        )
    }
}

/// Which operands are transposed, with sums in f32.
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn new(plan: Plan) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let made = Self(result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )?);
        for (attribute, operand) in [
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, plan.a),
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, plan.b),
        ] {
            // `cublasOperation_t`: N is 0, T is 1.
            let operation = i32::from(operand.transpose);
            // SAFETY: the attribute is such a number, which is read before the call returns.
            unsafe {
                let at = (&raw const operation).cast();
                result::set_matmul_desc_attribute(made.0, attribute, at, size_of_val(&operation))?;
            }
        }
        Ok(made)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `create_matmul_desc`, owned here alone, destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(operand: Operand, format: Format) -> Result<Self, CublasError> {
        let Operand { rows, cols, leading, .. } = operand;
        result::create_matrix_layout(format.data_type(), rows as u64, cols as u64, leading as i64).map(Self)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `create_matrix_layout`, owned here alone, destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What an algorithm may rely on.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(aligned: [u32; 3]) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let made = Self(result::create_matmul_pref()?);
        let workspace = WORKSPACE_BYTES as u64;
        // SAFETY: the attribute is such a number, which is read before the call returns.
        unsafe {
            let attribute = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            let at = (&raw const workspace).cast();
            result::set_matmul_pref_attribute(made.0, attribute, at, size_of_val(&workspace))?;
        }
        let [a, b, d] = aligned;
        for (attribute, bytes) in [
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, d),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d),
        ] {
            // SAFETY: as above.
            unsafe {
                let at = (&raw const bytes).cast();
                result::set_matmul_pref_attribute(made.0, attribute, at, size_of_val(&bytes))?;
            }
        }
        Ok(made)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `create_matmul_pref`, owned here alone, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn text(error: CublasError) -> String {
    format!("cuBLASLt: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_aligned_as_its_last_bits_say() {
        assert_eq!(alignment(0x7000_0000), 256);
        assert_eq!(alignment(0x7000_0010), 16);
        assert_eq!(alignment(0x7000_0002), 2);
    }
}
