use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::{PARALLEL, Wrapper, each_chunk, in_rows, reduce::dot, rows_of};

/// Rows that one task computes.
const ROWS: usize = 16;

/// `x / sqrt(mean(x^2) + epsilon) * gamma` over the last axis.
pub(crate) fn rms_norm<const D: usize>(x: &Tensor<D>, gamma: &Tensor<1>, epsilon: f32) -> Option<Tensor<D>> {
    let wrapper = Wrapper::of(x)?;
    let width = gamma.dims()[0];
    if width == 0 || x.dims()[D - 1] != width {
        return None;
    }
    let gamma = rows_of(gamma)?;
    let gamma: &[f32] = gamma.storage();
    let source = in_rows(wrapper.strip(x.clone())?);
    let source_values: &[f32] = source.storage();
    let mut values = vec![0.0f32; source_values.len()];
    let arch = pulp::Arch::new();
    let task = |(index, out): (usize, &mut [f32])| {
        let start = index * ROWS * width;
        let rows = source_values[start..start + out.len()].chunks_exact(width);
        for (out, row) in out.chunks_exact_mut(width).zip(rows) {
            arch.dispatch(NormRow { out, row, gamma, epsilon });
        }
    };
    let worth_it = values.len() > PARALLEL;
    each_chunk(&mut values, ROWS * width, worth_it, task);
    Some(wrapper.wrap(super::tensor(values, x.dims())))
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

#[cfg(test)]
mod tests {
    use super::super::tests::{close, random};
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
}
