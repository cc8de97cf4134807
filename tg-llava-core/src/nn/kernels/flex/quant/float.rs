use pulp::{Simd, WithSimd};

use super::super::reduce::dot;
use crate::quant::QuantMatrix;

/// Products of rows of a quantised matrix with a few rows of floats: a row is floats in the processor's cache alone. For each
/// row of the matrix, its product with each row of `x`.
pub(super) struct FloatProducts<'a> {
    pub matrix: &'a QuantMatrix,
    /// The first row of the matrix.
    pub first: usize,
    /// Rows of `d_input`.
    pub x: &'a [f32],
    pub out: &'a mut [f32],
}

impl WithSimd for FloatProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { matrix, first, x, out } = self;
        let d_input = matrix.shape()[1];
        let mut weights = vec![0.0; d_input];
        let rows = x.len() / d_input;
        for (row, out) in (first..).zip(out.chunks_exact_mut(rows)) {
            matrix.dequantise_rows(row..row + 1, &mut weights);
            for (out, x) in out.iter_mut().zip(x.chunks_exact(d_input)) {
                *out = dot(simd, x, &weights);
            }
        }
    }
}
