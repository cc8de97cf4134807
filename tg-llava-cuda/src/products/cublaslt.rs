//! Products of linear layers on a CUDA device: by cuBLASLt where that is faster, otherwise by Burn.

use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::Cube;
use cubecl_common::device_handle::DeviceHandle;
use tg_llava_core::nn::VendorProducts;

use super::choice::{Choice, Mode, measure};
use super::gradient::{Product, recorded};
use super::library::{Library, WORKSPACE_BYTES, knows};
use crate::device::{Server, resolve};

/// Rows, inputs and outputs of the layer that is measured: a block of a 7B decoder, and a text of usual length.
const MEASURED: [usize; 3] = [2048, 4096, 4096];

/// Fewer rows are read-bound, and Burn's affair.
const LEAST_ROWS: usize = 64;

/// cuBLASLt on the device of this process, from the first product on that is worth it.
struct State {
    device: DeviceHandle<Server>,
    library: Mutex<Library>,
    /// The first product that failed, which is told.
    failed: Once,
    note: Note,
}

/// Where products go; one a process, as its device is one.
static STATE: OnceLock<Option<State>> = OnceLock::new();

/// Products of linear layers for one device.
pub struct CublasLt {
    mode: Mode,
    device: Device,
    note: Note,
}

/// Who is told what is chosen.
pub type Note = Arc<dyn Fn(&str) + Send + Sync>;

impl CublasLt {
    /// Computes nothing yet. `note` is told, once, what is chosen and why.
    pub fn new(device: Device, mode: Mode, note: Note) -> Self {
        Self { mode, device: device.inner(), note }
    }

    /// Loads the library and compares it with Burn's products, at the first product that is worth it.
    fn state(&self, dtype: DType) -> Option<&'static State> {
        let found = STATE.get_or_init(|| match State::open(&self.device, self.note.clone()) {
            Err(reason) => {
                (self.note)(&format!("products by Burn's own kernels: {reason}"));
                None
            }
            Ok(state) if self.mode == Mode::CublasLt => Some(state),
            Ok(state) => {
                let vendor = |lhs: Tensor<2>, rhs: Tensor<2>| state.multiply(lhs, rhs);
                let Choice { ratio, vendor_is_faster } = match measure(&self.device, dtype, MEASURED, vendor)
                {
                    Ok(choice) => choice,
                    Err(reason) => {
                        (self.note)(&format!("products by Burn's own kernels: {reason}"));
                        return None;
                    }
                };
                let chosen = if vendor_is_faster { "cuBLASLt" } else { "Burn's own kernels" };
                (self.note)(&format!("products by {chosen}; cuBLASLt takes {ratio:.2} of Burn's time"));
                vendor_is_faster.then_some(state)
            }
        });
        found.as_ref()
    }
}

impl State {
    fn open(device: &Device, note: Note) -> Result<Self, String> {
        let workspace = Tensor::<1>::zeros([WORKSPACE_BYTES / DType::F32.size()], (device, DType::F32));
        let workspace =
            resolve(workspace.try_into_primitive::<Cube>().map_err(|error| format!("{error:?}"))?)?;
        let handle = DeviceHandle::<Server>::new(workspace.client.service_id().device);
        let library = handle
            .submit_blocking(move |_| Library::load(workspace))
            .map_err(|error| format!("the device's thread failed: {error:?}"))??;
        Ok(Self { device: handle, library: Mutex::new(library), failed: Once::new(), note })
    }

    fn multiply(&self, lhs: Tensor<2>, rhs: Tensor<2>) -> Result<Tensor<2>, String> {
        let primitive =
            |tensor: Tensor<2>| tensor.try_into_primitive::<Cube>().map_err(|error| format!("{error:?}"));
        Ok(Tensor::from_primitive::<Cube>(self.primitive(primitive(lhs)?, primitive(rhs)?)?))
    }

    fn primitive(&self, lhs: FloatTensor<Cube>, rhs: FloatTensor<Cube>) -> Result<FloatTensor<Cube>, String> {
        let dtype = lhs.dtype();
        let shape = [lhs.shape()[0], rhs.shape()[1]];
        let out = Cube::float_empty(shape.into(), &lhs.device(), dtype.into());
        let (lhs, rhs, into) = (resolve(lhs)?, resolve(rhs)?, resolve(out.clone())?);
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        library.product(&self.device, [&lhs, &rhs, &into])?;
        Ok(out)
    }
}

/// The products of [`STATE`], and Burn's where that fails.
#[derive(Debug, Clone, Copy)]
struct Chosen;

impl Product<Cube> for Chosen {
    fn product(self, lhs: FloatTensor<Cube>, rhs: FloatTensor<Cube>) -> FloatTensor<Cube> {
        let Some(state) = STATE.get().and_then(Option::as_ref) else { return Cube::float_matmul(lhs, rhs) };
        state.primitive(lhs.clone(), rhs.clone()).unwrap_or_else(|reason| {
            state
                .failed
                .call_once(|| (state.note)(&format!("some products by Burn's own kernels: {reason}")));
            Cube::float_matmul(lhs, rhs)
        })
    }
}

impl VendorProducts for CublasLt {
    fn product(&self, x: &Tensor<2>, weight: &Tensor<2>) -> Option<Tensor<2>> {
        let dtype = x.dtype();
        if x.dims()[0] < LEAST_ROWS || !knows(dtype) || weight.dtype() != dtype {
            return None;
        }
        let recording = x.device().is_autodiff();
        if x.device().inner() != self.device {
            return None;
        }
        self.state(dtype)?;
        if !recording {
            let primitive = |tensor: &Tensor<2>| tensor.clone().try_into_primitive::<Cube>().ok();
            return Some(Tensor::from_primitive::<Cube>(Chosen.product(primitive(x)?, primitive(weight)?)));
        }
        let primitive = |tensor: &Tensor<2>| tensor.clone().try_into_primitive::<Autodiff<Cube>>().ok();
        let y = recorded::<Cube, _>(Chosen, primitive(x)?, primitive(weight)?);
        Some(Tensor::from_primitive::<Autodiff<Cube>>(y))
    }
}
