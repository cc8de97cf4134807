//! Products of many rows.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use tg_llava_x86::prefetch;

use super::matvec::{Matrix, each_stretch};
use super::tile::{self, Floats, Rows, Sink};
use super::turn::Turner;
use super::{LINE, zeros};

/// Columns for one task: whole panels on any processor, and several tasks a thread.
pub(super) fn stretch(columns: usize, threads: usize) -> usize {
    const PANEL: usize = 64;
    columns.div_ceil(4 * threads).next_multiple_of(PANEL)
}

/// The right operand of a product.
#[derive(Debug, Clone, Copy)]
pub(super) enum Right<'a> {
    /// Each column is a row in memory.
    ByColumns(Matrix<'a>),
    /// `[d_input, d_output]`, row by row.
    ByRows(&'a [f32]),
}

/// Columns `first..` of all rows. A panel of the matrix is converted, and turned where that is needed, so that vectors hold neighbouring
/// columns, then multiplied with all rows while it is in a cache.
pub(super) struct Columns<'a, 'o> {
    pub out: &'a mut [&'o mut [f32]],
    pub first: usize,
    /// Rows of `d_input`.
    pub x: &'a [f32],
    pub d_input: usize,
    pub d_output: usize,
    pub right: Right<'a>,
    pub bias: Option<&'a [f32]>,
}

impl WithSimd for Columns<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, first, x, d_input, d_output, right, bias } = self;
        let (rows, columns, width) = (out.len(), out[0].len(), tile::width::<S>());
        let depth = d_input.div_ceil(d_input.div_ceil(tile::depth::<S>()));
        let mut panel = tile::Buffer::new(depth * width);
        let mut turner = Turner::new(width);
        for column in (0..columns).step_by(width) {
            let used = width.min(columns - column);
            for begin in (0..d_input).step_by(depth) {
                let depth = depth.min(d_input - begin);
                let panel = &mut panel.values()[..depth * width];
                match right {
                    Right::ByColumns(matrix) => {
                        let start = matrix.start + (first + column) * d_input + begin;
                        turner.turn(panel, [used, depth], matrix.values, |row| start + row * d_input);
                    }
                    Right::ByRows(values) => {
                        let rows = values[begin * d_output..].chunks(d_output);
                        for (out, row) in panel.chunks_exact_mut(width).zip(rows) {
                            out[..used].copy_from_slice(&row[first + column..][..used]);
                            out[used..].fill(0.0);
                        }
                    }
                }
                let bias = bias
                    .filter(|_| begin + depth == d_input)
                    .map(|bias| &bias[first + column..first + column + used]);
                let mut sums = Sums { out, column, used, begins: begin == 0, bias };
                let a = Rows { values: x, start: begin, stride: d_input, products: Floats };
                tile::multiply(simd, a, [rows, depth, width], (panel, depth), &mut sums);
            }
        }
    }
}

/// The product of `x`, rows of `d_input`, and `right`, `[d_input, d_output]`, both row by row.
pub(super) fn by_rows(x: &[f32], right: &[f32], [d_input, d_output]: [usize; 2]) -> Vec<f32> {
    let mut values = zeros(x.len() / d_input * d_output);
    let (arch, right) = (pulp::Arch::new(), Right::ByRows(right));
    each_stretch(&mut values, d_output, stretch(d_output, rayon::current_num_threads()), |first, out| {
        arch.dispatch(Columns { out, first, x, d_input, d_output, right, bias: None });
    });
    values
}

/// Adds up the stretches of the input in the output.
struct Sums<'a, 'o> {
    out: &'a mut [&'o mut [f32]],
    column: usize,
    used: usize,
    begins: bool,
    bias: Option<&'a [f32]>,
}

impl<S: Simd> Sink<S> for Sums<'_, '_> {
    #[inline(always)]
    fn expect(&self, rows: Range<usize>, column: usize) {
        let end = self.used.min(column + tile::width::<S>());
        for out in &self.out[rows] {
            for place in (column..end).step_by(LINE / size_of::<f32>()) {
                prefetch(out, self.column + place);
            }
        }
    }

    #[inline(always)]
    fn take(&mut self, simd: S, row: usize, column: usize, sums: &[S::f32s]) {
        let lanes = S::F32_LANES;
        let filled = column..column + sums.len() * lanes;
        if filled.end <= self.used {
            let out = &mut self.out[row][self.column..][filled.clone()];
            let out = S::as_mut_simd_f32s(out).0;
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out = if self.begins { sum } else { simd.add_f32s(*out, sum) };
            }
            if let Some(bias) = self.bias {
                for (out, &bias) in out.iter_mut().zip(S::as_simd_f32s(&bias[filled]).0) {
                    *out = simd.add_f32s(*out, bias);
                }
            }
            return;
        }
        for (v, &sum) in sums.iter().enumerate() {
            let from = column + v * lanes;
            if from >= self.used {
                return;
            }
            let to = self.used.min(from + lanes);
            let out = &mut self.out[row][self.column + from..self.column + to];
            let mut sum = sum;
            if !self.begins {
                sum = simd.add_f32s(simd.partial_load_f32s(out), sum);
            }
            if let Some(bias) = self.bias {
                sum = simd.add_f32s(sum, simd.partial_load_f32s(&bias[from..to]));
            }
            simd.partial_store_f32s(out, sum);
        }
    }
}
