//! Products of many rows in bf16, in the processor's matrix registers.

use half::bf16;
use half::slice::HalfFloatSliceExt;
use tg_llava_x86::{PackedColumns, PackedRows, Tiles};

use super::{matvec::each_stretch, product, zeros};

/// Bytes of columns that stay in a cache while all rows pass.
const PANEL: usize = 1 << 19;

/// `[rows, d_output]`, from rows and columns of `d_input` values, with sums in f32 that are rounded once.
pub(super) fn multiply(
    tiles: Tiles,
    x: &[bf16],
    columns: &[bf16],
    d_input: usize,
    bias: Option<&[f32]>,
) -> Vec<bf16> {
    let rows = PackedRows::new(x.reinterpret_cast(), d_input);
    let d_output = columns.len() / d_input;
    let mut values = zeros(rows.rows() * d_output);
    let stretch = product::stretch(d_output, rayon::current_num_threads());
    let at_once = (PANEL / size_of::<bf16>() / d_input).next_multiple_of(32);
    each_stretch(&mut values, d_output, stretch, |first, out| {
        let mut packed = PackedColumns::new(d_input);
        let width = out[0].len();
        for start in (0..width).step_by(at_once) {
            let end = width.min(start + at_once);
            let columns = &columns[(first + start) * d_input..(first + end) * d_input];
            tiles.pack_columns(&mut packed, columns.reinterpret_cast());
            let bias = bias.map(|bias| &bias[first + start..first + end]);
            tiles.multiply_narrow(&rows, &packed, (end - start, bias), |row, column, sums| {
                let out = &mut out[row][start + column..][..sums.len()];
                out.reinterpret_cast_mut().copy_from_slice(sums);
            });
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Tensor, Tolerance};

    use super::super::tests::random;
    use super::*;
    use crate::nn::cast_to;

    #[test]
    fn equals_the_product() {
        let Some(tiles) = Tiles::detect() else { return };
        for (rows, d_input, d_output) in [(5, 40, 3), (70, 1100, 130), (33, 9000, 200)] {
            let [x, weight] =
                [[rows, d_input], [d_output, d_input]].map(|shape| cast_to(random(shape, 1), DType::BF16));
            let bias: Vec<f32> = (0..d_output).map(|i| i as f32).collect();
            let values = |x: &Tensor<2>| x.to_data().try_to_vec::<bf16>().expect("values");
            let mine = multiply(tiles, &values(&x), &values(&weight), d_input, Some(&bias));
            let [x, weight] = [x, weight].map(|x| cast_to(x, DType::F32));
            let bias = Tensor::<1>::from_floats(bias.as_slice(), &x.device());
            let expected = x.matmul(weight.transpose()) + bias.unsqueeze();
            let mine =
                Tensor::<1>::from_floats(mine.as_slice(), &expected.device()).reshape([rows, d_output]);
            mine.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::rel_abs(4e-3, 1e-2));
        }
    }
}
