//! What the CPU backend (flex) computes in one pass over memory instead of several.
//!
//! Each function answers `None` where it does not apply: another backend, another dtype, or a tensor that gradients
//! are recorded for. The caller then writes the same out in Burn's operations, which is also what defines it.

mod activation;
mod exp;
mod matvec;
mod norm;
mod reduce;
mod rotary;
mod softmax;

use burn::backend::{Autodiff, Flex, tensor::FloatTensor};
use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

pub(super) use activation::{quick_gelu, silu, silu_gate};
pub(super) use matvec::{MOST_ROWS, matvec, reads_by_row};
pub(super) use norm::rms_norm;
pub(super) use rotary::rotate;
pub(super) use softmax::softmax;

/// Values below which a second thread costs more than it brings.
const PARALLEL: usize = 1 << 15;

/// How a tensor came, which is how the result goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    /// A device that records no gradients.
    Plain,
    /// A device that records gradients, though none for this tensor.
    Recording,
}

impl Home {
    /// Where `tensor` lives; `None` where these functions do not apply to it.
    fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        if tensor.dtype() != DType::F32 {
            return None;
        }
        if tensor.device().is_autodiff() {
            let inner = tensor.clone().try_into_primitive::<Autodiff<Flex>>().ok()?;
            (!inner.is_tracked()).then_some(Self::Recording)
        } else {
            tensor.clone().try_into_primitive::<Flex>().ok().map(|_| Self::Plain)
        }
    }

    /// The backend's own tensor, whatever its layout.
    fn open<const D: usize>(self, tensor: Tensor<D>) -> Option<FlexTensor> {
        match self {
            Self::Plain => tensor.try_into_primitive::<Flex>().ok(),
            Self::Recording => Some(tensor.try_into_primitive::<Autodiff<Flex>>().ok()?.into_primitive()),
        }
    }

    fn close<const D: usize>(self, tensor: FlexTensor) -> Tensor<D> {
        match self {
            Self::Plain => Tensor::from_primitive::<Flex>(tensor),
            Self::Recording => {
                Tensor::from_primitive::<Autodiff<Flex>>(FloatTensor::<Autodiff<Flex>>::new(tensor))
            }
        }
    }
}

/// The values of `tensor` in a row; `None` where these functions do not apply to it.
fn rows_of<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    Some(in_rows(Home::of(tensor)?.open(tensor.clone())?))
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
