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
