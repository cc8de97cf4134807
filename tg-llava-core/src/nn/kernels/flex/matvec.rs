use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};

use super::{PARALLEL, Wrapper, each_chunk, in_rows, reduce::dot, rows_of};
use crate::nn::RowsAlike;

/// Most rows of `x` for which reading the matrix is the work. Beyond, a product in blocks is better.
const MOST_ROWS: usize = 4;

/// `x W + bias` for a few rows, as in decoding: the matrix is read once, front to back, by all threads.
///
/// # Shapes
/// - x: `[.., d_input]` of at most 4 rows, output `[.., d_output]`
/// - weight: `[d_input, d_output]`, a transposed view of rows of `d_input` as files hold them
/// - bias: `[d_output]`
pub(crate) fn matvec<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    let mut shape = x.dims();
    let [d_input, d_output] = weight.dims();
    let rows = shape[..D - 1].iter().product::<usize>();
    if rows == 0 || rows > MOST_ROWS || d_input == 0 || d_output == 0 || shape[D - 1] != d_input {
        return None;
    }
    let wrapper = Wrapper::of(x)?;
    let weight = columns_of(weight)?;
    let start = weight.layout().start_offset();
    let matrix: &[f32] = &weight.storage::<f32>()[start..start + d_input * d_output];
    let bias = match bias {
        Some(bias) => Some(rows_of(bias)?),
        None => None,
    };
    let bias: Option<&[f32]> = bias.as_ref().map(|bias| bias.storage());
    let x = in_rows(wrapper.strip(x.clone())?);
    let x: &[f32] = x.storage();

    // One column of the output after the other, so that each task owns a stretch of it.
    let mut columns = vec![0.0f32; rows * d_output];
    let arch = pulp::Arch::new();
    let stretch = d_output.div_ceil(4 * rayon::current_num_threads()).max(16);
    let task = |(index, out): (usize, &mut [f32])| {
        arch.dispatch(Columns { out, rows, first: index * stretch, d_input, x, matrix, bias });
    };
    let worth_it = d_input * d_output > PARALLEL;
    each_chunk(&mut columns, stretch * rows, worth_it, task);
    let values = match rows {
        1 => columns,
        _ => (0..rows * d_output).map(|i| columns[i % d_output * rows + i / d_output]).collect(),
    };
    shape[D - 1] = d_output;
    Some(wrapper.wrap(super::tensor(values, shape)))
}

/// Rows of a product with `weight` that are computed to the bit as each alone would be: by [`matvec`], or by the
/// backend's `gemm`, which adds up each value of a product front to back, whatever the number of rows, but for small
/// products.
pub(crate) fn rows_alike(weight: &Tensor<2>) -> Option<RowsAlike> {
    columns_of(weight)?;
    Some(rows_alike_by_size(weight.dims()))
}

/// The same for a matrix `[d_input, d_output]` of that layout.
pub(super) fn rows_alike_by_size([d_input, d_output]: [usize; 2]) -> RowsAlike {
    // `gemm` may add up products of so few values in vectors along the input, and adds up those of so few rows and columns
    // in stretches of the input of another length, which shows where there is more than one stretch.
    const FEW_VALUES: usize = 16 * 16;
    const FEW_ROWS: usize = 64;
    const STRETCH: usize = 512;
    let by_values = FEW_VALUES / d_output.max(1) + 1;
    let by_stretches = if d_output <= FEW_ROWS && d_input > STRETCH { FEW_ROWS + 1 } else { 0 };
    let many = by_values.max(by_stretches).max(MOST_ROWS + 1);
    // Products of attention have as many rows as queries, and the keys as input.
    RowsAlike { few: MOST_ROWS, many, piece: many.max(FEW_ROWS + 1) }
}

/// The matrix, where it is a transposed view of rows.
fn columns_of(weight: &Tensor<2>) -> Option<FlexTensor> {
    let d_input = weight.dims()[0];
    let weight = Wrapper::of(weight)?.strip(weight.clone())?;
    let strides = weight.layout().strides();
    (strides[0] == 1 && strides[1] == d_input as isize).then_some(weight)
}

/// Columns `first..` of the output, one after the other.
struct Columns<'a> {
    out: &'a mut [f32],
    rows: usize,
    first: usize,
    d_input: usize,
    x: &'a [f32],
    matrix: &'a [f32],
    bias: Option<&'a [f32]>,
}

impl WithSimd for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, rows, first, d_input, x, matrix, bias } = self;
        for (column, out) in (first..).zip(out.chunks_exact_mut(rows)) {
            let weights = &matrix[column * d_input..(column + 1) * d_input];
            for (out, x) in out.iter_mut().zip(x.chunks_exact(d_input)) {
                *out = dot(simd, x, weights) + bias.map_or(0.0, |bias| bias[column]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::random;
    use super::*;

    #[test]
    fn equals_the_product() {
        for (rows, d_input, d_output) in [(1, 1, 1), (1, 576, 1536), (3, 67, 5), (4, 100, 1000)] {
            let (x, weight) = (random([1, rows, d_input], 1), random([d_output, d_input], 2).transpose());
            let bias = random([d_output], 3);
            let product = x.clone().matmul(weight.clone().unsqueeze());
            let tolerance = burn::tensor::Tolerance::rel_abs(1e-5, 1e-3);
            let fast = matvec(&x, &weight, None).expect("flex");
            fast.into_data().assert_approx_eq::<f32>(&product.clone().into_data(), tolerance);
            let fast = matvec(&x, &weight, Some(&bias)).expect("flex");
            let product = product + bias.unsqueeze();
            fast.into_data().assert_approx_eq::<f32>(&product.into_data(), tolerance);
        }
    }

    /// Texts one behind the other, each with its rows: few single ones, and many of each.
    #[test]
    fn rows_alike_have_the_bits_that_they_have_alone() {
        for [d_input, d_output] in [[16, 8], [64, 64], [64, 33], [1100, 40], [1100, 300], [3000, 64]] {
            let weight = random([d_output, d_input], 1).transpose();
            let RowsAlike { few, many, .. } = rows_alike(&weight).expect("flex");
            for lengths in [vec![1; few], vec![many; 2], vec![many + 3, many, 3 * many + 70, many + 1]] {
                let texts: Vec<Tensor<3>> =
                    (0..).zip(&lengths).map(|(seed, &len)| random([1, len, d_input], 2 + seed)).collect();
                // The backend copies the matrix in one of these forms, and reads it as it lies in the other.
                let batched = |x: Tensor<3>| x.matmul(weight.clone().unsqueeze());
                let plain = |x: Tensor<3>| x.squeeze_dim::<2>(0).matmul(weight.clone()).unsqueeze::<3>();
                let forms: [&dyn Fn(Tensor<3>) -> Tensor<3>; 2] = [&batched, &plain];
                for form in forms {
                    let product = |x: Tensor<3>| matvec(&x, &weight, None).unwrap_or_else(|| form(x));
                    let together = product(Tensor::cat(texts.clone(), 1));
                    let alone = Tensor::cat(texts.iter().cloned().map(product).collect(), 1);
                    assert_eq!(together.to_data(), alone.to_data(), "{d_input} to {d_output}, {lengths:?}");
                }
            }
        }
    }

    #[test]
    fn leaves_to_others_what_they_do_better() {
        let weight = random([8, 8], 1);
        assert!(matvec(&random([1, 8], 2), &weight, None).is_none(), "rows of d_output");
        assert!(matvec(&random([5, 8], 2), &weight.transpose(), None).is_none(), "many rows");
    }
}
