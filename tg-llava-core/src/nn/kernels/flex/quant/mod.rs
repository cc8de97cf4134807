//! Products with quantised matrices: a few rows straight from the stored bytes.

mod float;
mod int8;

use std::ops::Range;

use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use self::{float::FloatProducts, int8::Products};
use super::{PARALLEL, Wrapper, each_chunk, in_rows, matvec::rows_alike_by_size, rows_of};
use crate::nn::RowsAlike;
use crate::quant::ggml::{self, GgmlType, Int8Row};
use crate::quant::{Activations, GgmlMatrix, QuantMatrix};

/// Most rows of activations that are better multiplied by each row of the matrix as it is read than by floats in memory.
const MOST_ROWS: usize = 16;

/// `x Mᵗ + bias` for a few rows: the stored matrix is read once, front to back, by all threads. Rows of activations become
/// 8-bit integers where they are at most [`int8::MOST_ROWS`] and the matrix asks for it. A row's bits do not depend on the
/// others, but for that.
///
/// # Shapes
/// - x: `[.., d_input]` of at most [`MOST_ROWS`] rows, output `[.., d_output]`
/// - bias: `[d_output]`
pub(in crate::nn) fn quantised_matvec<const D: usize>(
    x: &Tensor<D>,
    matrix: &QuantMatrix,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    let mut shape = x.dims();
    let [d_output, d_input] = matrix.shape();
    let rows = shape[..D - 1].iter().product::<usize>();
    if rows == 0 || rows > MOST_ROWS || d_input == 0 || d_output == 0 || shape[D - 1] != d_input {
        return None;
    }
    let wrapper = Wrapper::of(x)?;
    let bias = match bias {
        Some(bias) => Some(rows_of(bias)?),
        None => None,
    };
    let x = in_rows(wrapper.strip(x.clone())?);
    let x: &[f32] = x.storage();

    // One column of the output after the other, so that each task owns a stretch of it.
    let mut columns = vec![0.0f32; rows * d_output];
    let stretch = d_output.div_ceil(4 * rayon::current_num_threads()).max(16);
    let worth_it = d_input * d_output > PARALLEL;
    match as_integers(matrix, rows) {
        Some(matrix) => {
            let x: Vec<Int8Row> = x.chunks_exact(d_input).map(Int8Row::new).collect();
            each_chunk(&mut columns, stretch * rows, worth_it, |(index, out): (usize, &mut [f32])| {
                let first = index * stretch * matrix.row_bytes();
                let blocks = &matrix.blocks()[first..first + out.len() / rows * matrix.row_bytes()];
                let (format, row_bytes) = (matrix.format(), matrix.row_bytes());
                Products { format, row_bytes, blocks, x: &x, out }.run();
            });
        }
        None => {
            let arch = pulp::Arch::new();
            each_chunk(&mut columns, stretch * rows, worth_it, |(index, out): (usize, &mut [f32])| {
                arch.dispatch(FloatProducts { matrix, first: index * stretch, x, out });
            });
        }
    }
    if let Some(bias) = &bias {
        let bias: &[f32] = bias.storage();
        for (columns, bias) in columns.chunks_exact_mut(rows).zip(bias) {
            columns.iter_mut().for_each(|y| *y += bias);
        }
    }
    let values = match rows {
        1 => columns,
        _ => (0..rows * d_output).map(|i| columns[i % d_output * rows + i / d_output]).collect(),
    };
    shape[D - 1] = d_output;
    Some(wrapper.wrap(super::tensor(values, shape)))
}

/// The matrix, where activations of so many rows become integers.
fn as_integers(matrix: &QuantMatrix, rows: usize) -> Option<&GgmlMatrix> {
    match matrix {
        QuantMatrix::Ggml(matrix) => {
            (rows <= int8::MOST_ROWS && matrix.activations() == Activations::Int8).then_some(matrix)
        }
        QuantMatrix::FourBit(_) | QuantMatrix::Int8(_) => None,
    }
}

/// Rows of a product with `matrix`, of which `d_output` rows are floats at a time, that are computed to the bit as each alone
/// would be.
pub(in crate::nn) fn quantised_rows_alike(matrix: &QuantMatrix, d_output: usize) -> Option<RowsAlike> {
    let RowsAlike { many, piece, .. } = rows_alike_by_size([matrix.shape()[1], d_output]);
    let few = if as_integers(matrix, 1).is_some() { int8::MOST_ROWS } else { MOST_ROWS };
    Some(RowsAlike { few, many: many.max(MOST_ROWS + 1), piece: piece.max(MOST_ROWS + 1) })
}

/// [`QuantMatrix::dequantise_rows`] in all threads.
pub(in crate::nn) fn dequantise_rows(matrix: &QuantMatrix, rows: Range<usize>, out: &mut [f32]) {
    /// Rows of a task.
    const STRETCH: usize = 16;
    let width = matrix.shape()[1].max(1);
    let arch = pulp::Arch::new();
    out.par_chunks_mut(STRETCH * width).enumerate().for_each(|(index, out)| {
        let first = rows.start + index * STRETCH;
        arch.dispatch(Dequantise { matrix, rows: first..first + out.len() / width, out });
    });
}

struct Dequantise<'a> {
    matrix: &'a QuantMatrix,
    rows: Range<usize>,
    out: &'a mut [f32],
}

impl WithSimd for Dequantise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.matrix.dequantise_rows(self.rows, self.out);
    }
}

/// [`ggml::quantise`] in all threads.
pub(in crate::nn) fn quantise(format: GgmlType, values: &[f32], row_len: usize) -> Vec<u8> {
    /// Rows of a task.
    const STRETCH: usize = 16;
    let stretches = values.par_chunks(STRETCH * row_len.max(1));
    let stretches: Vec<Vec<u8>> = stretches.map(|values| ggml::quantise(format, values, row_len)).collect();
    stretches.concat()
}

#[cfg(test)]
mod tests;
