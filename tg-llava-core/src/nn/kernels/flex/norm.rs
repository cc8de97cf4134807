use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};

use super::pieces::by_pieces;
use super::recorded::{self, Derivative, Input};
use super::reduce::dot;
use super::{PARALLEL, Wrapper, each_two_chunks, in_rows, rows_of, zeros};

/// Rows that one task computes.
const ROWS: usize = 16;

/// `x / sqrt(mean(x^2) + epsilon) * gamma` over the last axis, recorded where a gradient is wanted.
pub(crate) fn rms_norm<const D: usize>(x: &Tensor<D>, gamma: &Tensor<1>, epsilon: f32) -> Option<Tensor<D>> {
    if let Some(inputs) = recorded::inputs([Input::of(x), Input::of(gamma)]) {
        let output = rms_norm(&x.clone().inner(), &gamma.clone().inner(), epsilon)?;
        let [x, gamma] = inputs.each_ref().map(Input::values);
        return recorded::record(inputs, Back { x, gamma, epsilon }, output);
    }
    let wrapper = Wrapper::of(x)?;
    let width = gamma.dims()[0];
    if width == 0 || x.dims()[D - 1] != width {
        return None;
    }
    let gamma = rows_of(gamma)?;
    let gamma: &[f32] = gamma.storage();
    by_pieces(wrapper, [wrapper.strip(x.clone())?], ROWS * width, |[x], out| {
        for (out, row) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            pulp::Arch::new().dispatch(NormRow { out, row, gamma, epsilon });
        }
    })
}

struct NormRow<'a> {
    out: &'a mut [f32],
    row: &'a [f32],
    gamma: &'a [f32],
    epsilon: f32,
}

impl WithSimd for NormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mean = dot(simd, self.row, self.row) / self.row.len() as f32;
        let rms = (mean + self.epsilon).sqrt();
        for ((out, &value), &gamma) in self.out.iter_mut().zip(self.row).zip(self.gamma) {
            *out = value / rms * gamma;
        }
    }
}

#[derive(Debug, Clone)]
struct Back {
    x: FlexTensor,
    gamma: FlexTensor,
    epsilon: f32,
}

impl Derivative<2> for Back {
    fn gradients(self, gradient: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let shape = self.x.layout().shape().clone();
        let [x, gamma, gradient] = [self.x, self.gamma, gradient].map(in_rows);
        let [x, gamma, gradient]: [&[f32]; 3] = [&x, &gamma, &gradient].map(FlexTensor::storage);
        let (width, epsilon) = (gamma.len(), self.epsilon);
        let size = ROWS * width;
        let mut for_x = zeros(x.len());
        // Each task adds up its rows, and then the tasks are added in their order, whoever had them.
        let mut sums = vec![0.0f32; x.len().div_ceil(size) * width];
        let worth_it = x.len() > PARALLEL;
        let arch = pulp::Arch::new();
        each_two_chunks((&mut for_x, size), (&mut sums, width), worth_it, |(index, (for_x, for_gamma))| {
            let part = index * size..index * size + for_x.len();
            let (x, gradient) = (&x[part.clone()], &gradient[part]);
            arch.dispatch(NormRowsBack { for_x, for_gamma, x, gamma, gradient, epsilon });
        });
        let (for_gamma, more) = sums.split_at_mut(width);
        for part in more.chunks_exact(width) {
            for_gamma.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        sums.truncate(width);
        [Some(FlexTensor::from_data(TensorData::new(for_x, shape))), Some(super::tensor(sums, [width]))]
    }
}

/// With `r` the root of the mean square: `gamma g / r - x sum(gamma g x) / (n r^3)` for x, and `g x / r` for gamma.
struct NormRowsBack<'a> {
    for_x: &'a mut [f32],
    /// Zeros at first.
    for_gamma: &'a mut [f32],
    x: &'a [f32],
    gamma: &'a [f32],
    gradient: &'a [f32],
    epsilon: f32,
}

impl WithSimd for NormRowsBack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { for_x, for_gamma, x, gamma, gradient, epsilon } = self;
        let width = gamma.len();
        let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
        for (out, (x, gradient)) in for_x.chunks_exact_mut(width).zip(rows) {
            let rms = (dot(simd, x, x) / width as f32 + epsilon).sqrt();
            let share = 1.0 / rms;
            for i in 0..width {
                out[i] = gradient[i] * gamma[i];
                for_gamma[i] += gradient[i] * x[i] * share;
            }
            let along = dot(simd, out, x) * share * share * share / width as f32;
            for (out, x) in out.iter_mut().zip(x) {
                *out = *out * share - x * along;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, gradients_agree, random};
    use super::*;

    #[test]
    fn equals_the_written_out_form() {
        for (rows, width) in [(1, 1), (3, 48), (700, 576)] {
            let (x, gamma) = (random([2, rows, width], 1), random([width], 2));
            let rms = (x.clone().square().mean_dim(2) + 1e-5).sqrt();
            let expected = x.clone() / rms * gamma.clone().unsqueeze();
            close(&rms_norm(&x, &gamma, 1e-5).expect("flex"), &expected);
        }
    }

    #[test]
    fn gradients_are_those_of_the_written_out_form() {
        // Of a width of 1 nothing but rounding is left.
        for (rows, width) in [(1, 5), (3, 48), (700, 576)] {
            gradients_agree(
                [random([2, rows, width], 1), random([1, 1, width], 2)],
                |[x, gamma]| rms_norm(&x, &gamma.reshape([width]), 1e-5).expect("flex in f32"),
                |[x, gamma]| x.clone() / (x.square().mean_dim(2) + 1e-5).sqrt() * gamma,
            );
        }
    }
}
