use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::FlexTensor;
use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::half::{Narrow, Values, Widen};
use super::{PARALLEL, Wrapper, zeros};

/// What `task` computes of each `size` values of all inputs, which have one shape. What is stored in half
/// precision is widened and rounded piece by piece, and so never in memory as f32.
pub(super) fn by_pieces<const N: usize, const D: usize>(
    wrapper: Wrapper,
    inputs: [FlexTensor; N],
    size: usize,
    task: impl Fn([&[f32]; N], &mut [f32]) + Sync + Send,
) -> Option<Tensor<D>> {
    let inputs = inputs.map(|input| input.to_contiguous());
    let shape = inputs[0].layout().shape().clone();
    let len = shape.num_elements();
    let mut opened = [(Values::F32(&[]), 0); N];
    for (opened, input) in opened.iter_mut().zip(&inputs) {
        *opened = (Values::of(input)?, input.layout().start_offset());
    }
    let compute = |index: usize, out: &mut [f32]| {
        let mut rooms = [const { Vec::new() }; N];
        let mut pieces: [&[f32]; N] = [&[]; N];
        for ((piece, room), &(values, start)) in pieces.iter_mut().zip(&mut rooms).zip(&opened) {
            *piece = piece_of(values, start + index * size, out.len(), room);
        }
        task(pieces, out);
    };
    let data = match wrapper.dtype {
        DType::F16 => TensorData::new(narrowed::<f16>(len, size, compute), shape),
        DType::BF16 => TensorData::new(narrowed::<bf16>(len, size, compute), shape),
        _ => {
            let mut values = zeros(len);
            super::each_chunk(&mut values, size, len > PARALLEL, |(index, out)| compute(index, out));
            TensorData::new(values, shape)
        }
    };
    Some(wrapper.rewrap(FlexTensor::from_data(data)))
}

/// `len` values from `start`, where they are or widened into `room`.
fn piece_of<'a>(values: Values<'a>, start: usize, len: usize, room: &'a mut Vec<f32>) -> &'a [f32] {
    if let Values::F32(values) = values {
        return &values[start..start + len];
    }
    room.resize(len, 0.0);
    pulp::Arch::new().dispatch(Widen { to: room, from: values, start });
    room
}

/// `len` values that are computed in f32, each rounded once.
fn narrowed<H: Copy + Default + Send + Sync>(
    len: usize,
    size: usize,
    compute: impl Fn(usize, &mut [f32]) + Sync + Send,
) -> Vec<H>
where
    for<'a> Narrow<'a, H>: WithSimd<Output = ()>,
{
    let mut values = zeros(len);
    let task = |(index, to): (usize, &mut [H])| {
        let mut room = vec![0.0; to.len()];
        compute(index, &mut room);
        pulp::Arch::new().dispatch(Narrow { to, from: &room });
    };
    match len > PARALLEL {
        true => values.par_chunks_mut(size).enumerate().for_each(task),
        false => values.chunks_mut(size).enumerate().for_each(task),
    }
    values
}

/// `a + b` in half precision, where the backend adds one value after the other.
pub(in crate::nn) fn add<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> Option<Tensor<D>> {
    /// Values of a task.
    const PIECE: usize = 1 << 14;
    let (wrapper, other) = (Wrapper::of(a)?, Wrapper::of(b)?);
    if wrapper != other || wrapper.dtype == DType::F32 || a.dims() != b.dims() {
        return None;
    }
    let inputs = [wrapper.strip(a.clone())?, wrapper.strip(b.clone())?];
    by_pieces(wrapper, inputs, PIECE, |[a, b], out| pulp::Arch::new().dispatch(Sum { out, a, b }))
}

struct Sum<'a> {
    out: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
}

impl WithSimd for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((out, a), b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = a + b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::random;
    use super::*;
    use crate::nn::cast_to;

    #[test]
    fn sums_are_the_backend_s_to_the_bit() {
        for dtype in [DType::F16, DType::BF16] {
            for len in [1, 19, 70_001] {
                let [a, b] = [1, 2].map(|seed| cast_to(random([len, 2], seed), dtype));
                // Views, of which one does not lie in a row.
                let (a, b) = (a.narrow(0, 0, len).transpose(), b.transpose());
                let mine = add(&a, &b).expect("flex");
                assert_eq!(mine.to_data(), (a + b).to_data(), "{len} in {dtype:?}");
            }
        }
        let x = random([3], 1);
        assert!(add(&x, &x).is_none(), "f32 is the backend's");
    }
}
