//! Kernels of the CPU backend (flex). All add up in f32; values in half precision are widened on their way in, but for bf16 where the
//! processor multiplies it as it is, and results rounded on their way out.

mod activation;
mod attention;
mod exp;
mod half;
mod loss;
mod matvec;
mod norm;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod pieces;
mod product;
mod quant;
mod recorded;
mod recorded_linear;
mod reduce;
mod rotary;
mod softmax;
mod tile;
mod tiled;
mod turn;

use ::half::{bf16, f16};
use burn::backend::{Autodiff, Flex, tensor::FloatTensor};
use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::FlexTensor;
use pulp::WithSimd;
use rayon::prelude::*;

pub(in crate::nn) use activation::{quick_gelu, silu, silu_gate};
pub(in crate::nn) use attention::{attend_newest, attention};
pub(in crate::nn) use loss::cross_entropy_sum;
pub(in crate::nn) use matvec::{linear, rows_alike};
pub(in crate::nn) use norm::rms_norm;
pub(in crate::nn) use pieces::add;
pub(in crate::nn) use quant::{dequantise_rows, quantise, quantised_matvec, quantised_rows_alike};
pub(in crate::nn) use recorded_linear::linear_against;
pub(in crate::nn) use rotary::rotate;
pub(in crate::nn) use softmax::softmax;

/// Runs `task` on one of the threads that the kernels share their work among, where `tensor` is of this backend: another thread
/// would go to sleep, and be woken, for each of them.
pub(crate) fn among_workers<T: Send>(tensor: &Tensor<1>, task: impl FnOnce() -> T + Send) -> T {
    match Wrapper::of(tensor) {
        Some(_) => rayon::scope(|_| task()),
        None => task(),
    }
}

/// The results of both, which do not wait for each other where `tensor` is of this backend and records nothing: hands without work in
/// one help with the other.
pub(crate) fn join<A: Send, B: Send, const D: usize>(
    tensor: &Tensor<D>,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    match Wrapper::of(tensor) {
        Some(Wrapper { device: Recording::Never, .. }) => rayon::join(a, b),
        _ => (a(), b()),
    }
}

/// `tensor` in another float type.
pub(in crate::nn) fn cast<const D: usize>(tensor: &Tensor<D>, dtype: DType) -> Option<Tensor<D>> {
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return None;
    }
    let wrapper = Wrapper::of(tensor)?;
    Some(Wrapper { dtype, ..wrapper }.wrap(in_rows(wrapper.strip(tensor.clone())?)))
}

/// Bytes that memory gives at a time.
const LINE: usize = 64;

/// Bytes of a matrix that are asked for before they are read. Processors see themselves what comes next where rows that are read
/// side by side lie a long way apart, so that each goes on where the last one ended; some do so better when they are asked.
const AHEAD: usize = 2048;

/// Values below which a second thread costs more than it brings.
const PARALLEL: usize = 1 << 15;

/// What is around the values of a tensor of the backend, and goes around the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wrapper {
    device: Recording,
    dtype: DType,
}

/// Whether a tensor's device records gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recording {
    Never,
    /// Though none for this tensor.
    Others,
}

impl Wrapper {
    /// What is around `tensor`; `None` where these functions do not apply to it.
    fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        let dtype = tensor.dtype();
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return None;
        }
        let device = if tensor.device().is_autodiff() {
            let inner = tensor.clone().try_into_primitive::<Autodiff<Flex>>().ok()?;
            (!inner.is_tracked()).then_some(Recording::Others)?
        } else {
            tensor.clone().try_into_primitive::<Flex>().ok().map(|_| Recording::Never)?
        };
        Some(Self { device, dtype })
    }

    /// The backend's own tensor, whatever its layout.
    fn strip<const D: usize>(self, tensor: Tensor<D>) -> Option<FlexTensor> {
        match self.device {
            Recording::Never => tensor.try_into_primitive::<Flex>().ok(),
            Recording::Others => Some(tensor.try_into_primitive::<Autodiff<Flex>>().ok()?.into_primitive()),
        }
    }

    /// A tensor of the f32 values, in the dtype and on the device of the one that this is from.
    fn wrap<const D: usize>(self, tensor: FlexTensor) -> Tensor<D> {
        self.rewrap(self.narrow(tensor))
    }

    /// A tensor of the dtype that this is from, on its device.
    fn rewrap<const D: usize>(self, tensor: FlexTensor) -> Tensor<D> {
        match self.device {
            Recording::Never => Tensor::from_primitive::<Flex>(tensor),
            Recording::Others => {
                Tensor::from_primitive::<Autodiff<Flex>>(FloatTensor::<Autodiff<Flex>>::new(tensor))
            }
        }
    }

    fn narrow(self, tensor: FlexTensor) -> FlexTensor {
        let shape = tensor.layout().shape().clone();
        let from: &[f32] = tensor.storage();
        match self.dtype {
            DType::F16 => FlexTensor::from_data(TensorData::new(rounded::<f16>(from), shape)),
            DType::BF16 => FlexTensor::from_data(TensorData::new(rounded::<bf16>(from), shape)),
            _ => tensor,
        }
    }
}

/// The nearest values in half precision.
fn rounded<H: Copy + Default + Send + Sync>(from: &[f32]) -> Vec<H>
where
    for<'a> half::Narrow<'a, H>: WithSimd<Output = ()>,
{
    let mut values = zeros(from.len());
    let arch = pulp::Arch::new();
    each_pair(&mut values, from, |to, from| arch.dispatch(half::Narrow { to, from }));
    values
}

/// Runs `task` on chunks of two slices of one length, in all threads where it is worth it.
fn each_pair<T: Send>(to: &mut [T], from: &[f32], task: impl Fn(&mut [T], &[f32]) + Sync + Send) {
    match to.len() > PARALLEL {
        true => {
            to.par_chunks_mut(PARALLEL).zip(from.par_chunks(PARALLEL)).for_each(|(to, from)| task(to, from))
        }
        false => task(to, from),
    }
}

/// The values of `tensor` in a row; `None` where these functions do not apply to it.
fn rows_of<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    Some(in_rows(Wrapper::of(tensor)?.strip(tensor.clone())?))
}

/// Zeros to be overwritten, of all threads where one alone would keep the others waiting.
fn zeros<T: Copy + Default + Send + Sync>(len: usize) -> Vec<T> {
    match len > 4 * PARALLEL {
        true => {
            // Many at a time: one by one they would cost more than another thread brings.
            let mut zeros = rayon::iter::repeat_n([T::default(); 64], len.div_ceil(64))
                .collect::<Vec<_>>()
                .into_flattened();
            zeros.truncate(len);
            zeros
        }
        false => vec![T::default(); len],
    }
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

/// As [`each_chunk`] with chunks of two slices, each of a size of its own; all but the last ones are full.
fn each_two_chunks(
    (a, a_size): (&mut [f32], usize),
    (b, b_size): (&mut [f32], usize),
    worth_it: bool,
    task: impl Fn((usize, (&mut [f32], &mut [f32]))) + Sync + Send,
) {
    match worth_it {
        true => a.par_chunks_mut(a_size).zip(b.par_chunks_mut(b_size)).enumerate().for_each(task),
        false => a.chunks_mut(a_size).zip(b.chunks_mut(b_size)).enumerate().for_each(task),
    }
}

/// `tensor` with its values in a row, in f32, from the start of a buffer of exactly their size.
fn in_rows(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    let (start, len, in_a_row) = (layout.start_offset(), layout.num_elements(), layout.is_contiguous());
    let is_f32 = tensor.dtype() == DType::F32;
    if is_f32 && in_a_row && start == 0 && tensor.storage::<f32>().len() == len {
        return tensor;
    }
    if is_f32 || !in_a_row {
        let copy = FlexTensor::from_data(tensor.into_data());
        return if is_f32 { copy } else { in_rows(copy) };
    }
    let Some(from) = half::Values::of(&tensor) else { return tensor };
    let mut values = zeros(len);
    let arch = pulp::Arch::new();
    each_chunk(&mut values, PARALLEL, len > PARALLEL, |(index, to)| {
        arch.dispatch(half::Widen { to, from, start: start + index * PARALLEL });
    });
    FlexTensor::from_data(TensorData::new(values, layout.shape().clone()))
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

    /// What `ours` gives and its gradients are those of `written_out`, whichever of the inputs they are wanted of.
    pub fn gradients_agree<const N: usize, const D: usize, const O: usize>(
        inputs: [Tensor<D>; N],
        ours: impl Fn([Tensor<D>; N]) -> Tensor<O>,
        written_out: impl Fn([Tensor<D>; N]) -> Tensor<O>,
    ) {
        let seed = random(ours(inputs.clone()).dims(), 99);
        for wanted in 1..1 << N {
            let run = |f: &dyn Fn([Tensor<D>; N]) -> Tensor<O>| {
                let mut index = 0;
                let inputs = inputs.clone().map(|input| {
                    let input = Tensor::from_inner(input);
                    index += 1;
                    if wanted >> (index - 1) & 1 == 1 { input.require_grad() } else { input }
                });
                let y = f(inputs.clone());
                let value = y.clone().inner();
                let grads = (y * Tensor::from_inner(seed.clone())).sum().backward();
                (value, inputs.map(|input| input.grad(&grads)))
            };
            let ((mine, my_gradients), (theirs, their_gradients)) = (run(&ours), run(&written_out));
            near(&mine, &theirs);
            for (mine, theirs) in my_gradients.iter().zip(&their_gradients) {
                assert_eq!(mine.is_some(), theirs.is_some());
                mine.iter().zip(theirs).for_each(|(mine, theirs)| near(mine, theirs));
            }
        }
        let small = inputs.iter().all(|input| input.shape().num_elements() < 2_000);
        for place in 0..if small { N } else { 0 } {
            follows_differences(&inputs, place, &seed, &ours);
        }
    }

    /// Input `place` moved a little changes what `f` gives as its gradient says.
    fn follows_differences<const N: usize, const D: usize, const O: usize>(
        inputs: &[Tensor<D>; N],
        place: usize,
        seed: &Tensor<O>,
        f: impl Fn([Tensor<D>; N]) -> Tensor<O>,
    ) {
        const STEP: f64 = 1e-3;
        let direction: Tensor<D> = random(inputs[place].dims(), 98) / 3.0;
        let at = |step: f64| {
            let mut inputs = inputs.clone();
            inputs[place] = inputs[place].clone() + direction.clone() * step;
            let products = f(inputs) * seed.clone();
            products.into_data().iter::<f64>().sum::<f64>()
        };
        let found = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        let mut inputs = inputs.clone().map(Tensor::from_inner);
        inputs[place] = inputs[place].clone().require_grad();
        let grads = (f(inputs.clone()) * Tensor::from_inner(seed.clone())).sum().backward();
        let products = inputs[place].grad(&grads).expect("wanted") * direction;
        let products: Vec<f64> = products.into_data().iter::<f64>().collect();
        let (said, scale) =
            (products.iter().sum::<f64>(), products.iter().map(|x| x * x).sum::<f64>().sqrt());
        assert!((found - said).abs() <= 1e-2 * scale + 5e-3, "{found} and not {said}, of about {scale}");
    }

    /// Equal up to a few units in the last place of the largest value.
    pub fn near<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) {
        assert_eq!(a.dims(), b.dims());
        let largest: f32 = b.clone().abs().max().into_scalar();
        a.to_data().assert_approx_eq::<f32>(&b.to_data(), Tolerance::rel_abs(1e-5, 3e-6 * largest));
    }
}
