//! Kernels of the CPU backend (flex), for f32.

mod activation;
mod exp;
mod matvec;
mod norm;
mod quant;
mod reduce;
mod rotary;
mod softmax;

use burn::backend::{Autodiff, Flex, tensor::FloatTensor};
use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

pub(in crate::nn) use activation::{quick_gelu, silu, silu_gate};
pub(in crate::nn) use matvec::{matvec, rows_alike};
pub(in crate::nn) use norm::rms_norm;
pub(in crate::nn) use quant::{dequantise_rows, quantise, quantised_matvec, quantised_rows_alike};
pub(in crate::nn) use rotary::rotate;
pub(in crate::nn) use softmax::softmax;

/// Values below which a second thread costs more than it brings.
const PARALLEL: usize = 1 << 15;

/// What is around a tensor of the backend, and goes around the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrapper {
    /// Nothing: the device records no gradients.
    Plain,
    /// That of a device that records gradients, though none for this tensor.
    Autodiff,
}

impl Wrapper {
    /// What is around `tensor`; `None` where these functions do not apply to it.
    fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        if tensor.dtype() != DType::F32 {
            return None;
        }
        if tensor.device().is_autodiff() {
            let inner = tensor.clone().try_into_primitive::<Autodiff<Flex>>().ok()?;
            (!inner.is_tracked()).then_some(Self::Autodiff)
        } else {
            tensor.clone().try_into_primitive::<Flex>().ok().map(|_| Self::Plain)
        }
    }

    /// The backend's own tensor, whatever its layout.
    fn strip<const D: usize>(self, tensor: Tensor<D>) -> Option<FlexTensor> {
        match self {
            Self::Plain => tensor.try_into_primitive::<Flex>().ok(),
            Self::Autodiff => Some(tensor.try_into_primitive::<Autodiff<Flex>>().ok()?.into_primitive()),
        }
    }

    fn wrap<const D: usize>(self, tensor: FlexTensor) -> Tensor<D> {
        match self {
            Self::Plain => Tensor::from_primitive::<Flex>(tensor),
            Self::Autodiff => {
                Tensor::from_primitive::<Autodiff<Flex>>(FloatTensor::<Autodiff<Flex>>::new(tensor))
            }
        }
    }
}

/// The values of `tensor` in a row; `None` where these functions do not apply to it.
fn rows_of<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    Some(in_rows(Wrapper::of(tensor)?.strip(tensor.clone())?))
}

/// Runs `task` on the number and the values of each chunk, in all threads where `worth_it`.
fn each_chunk(
    values: &mut [f32],
    size: usize,
    worth_it: bool,
    task: impl Fn((usize, &mut [f32])) + Sync + Send,
) {
    match worth_it {
        true => values.par_chunks_mut(size).enumerate().for_each(task),
        false => values.chunks_mut(size).enumerate().for_each(task),
    }
}

/// `tensor` with its values in a row from the start of a buffer of exactly their size.
fn in_rows(tensor: FlexTensor) -> FlexTensor {
    let exact = tensor.layout().is_contiguous()
        && tensor.layout().start_offset() == 0
        && tensor.storage::<f32>().len() == tensor.layout().num_elements();
    if exact { tensor } else { FlexTensor::from_data(tensor.into_data()) }
}

/// A tensor of `values` in a row.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

#[cfg(test)]
pub(super) mod tests {
    use burn::tensor::{Device, Distribution, Tensor, Tolerance};

    /// Random numbers of a wide range.
    pub fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
        let device = Device::flex();
        device.seed(seed);
        Tensor::random(shape, Distribution::Normal(0.0, 3.0), &device)
    }

    /// Equal up to the last few bits.
    pub fn close<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) {
        a.to_data().assert_approx_eq::<f32>(&b.to_data(), Tolerance::rel_abs(3e-6, 1e-6));
    }
}
