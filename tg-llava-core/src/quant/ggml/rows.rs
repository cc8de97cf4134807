use super::format::with_block;
use super::{Block, GROUP, GgmlType, Int8Row, float};

/// Values of rows of `row_len` that are stored as `bytes`, exact to the bit.
///
/// # Panics
/// Where lengths differ from those of whole rows: a programmer's error.
#[inline(always)]
pub fn dequantise(format: GgmlType, bytes: &[u8], row_len: usize, out: &mut [f32]) {
    check_lengths(format, bytes, row_len, out.len());
    with_block!(format, B => dequantise_blocks::<B>(bytes, row_len, out), float => float::read(format, bytes, out));
}

/// `values`, rows of `row_len`, as bytes: those of llama.cpp's `quantize_row_*_ref`.
///
/// # Panics
/// Where `values` are no whole rows: a programmer's error.
pub fn quantise(format: GgmlType, values: &[f32], row_len: usize) -> Vec<u8> {
    let rows = values.len().checked_div(row_len).unwrap_or(0);
    let mut bytes = vec![0; rows * format.row_bytes(row_len)];
    quantise_into(format, values, row_len, &mut bytes);
    bytes
}

/// [`quantise`] into `bytes`.
///
/// # Panics
/// Where lengths differ from those of whole rows: a programmer's error.
#[inline(always)]
pub fn quantise_into(format: GgmlType, values: &[f32], row_len: usize, bytes: &mut [u8]) {
    check_lengths(format, bytes, row_len, values.len());
    with_block!(format, B => quantise_blocks::<B>(values, row_len, bytes), float => float::write(format, values, bytes));
}

/// The product of a stored row and of activations as integers: integer sums of each group of 32, scaled and added up in f32.
/// What the kernels compute, written out.
///
/// # Panics
/// Where the row has plain floats, or is longer than `x`: a programmer's error.
pub fn dot_int8(format: GgmlType, row: &[u8], x: &Int8Row) -> f32 {
    with_block!(format, B => dot_blocks::<B>(row, x), float => panic!("{format} has no blocks"))
}

fn check_lengths(format: GgmlType, bytes: &[u8], row_len: usize, values: usize) {
    let rows = values.checked_div(row_len).unwrap_or(0);
    assert_eq!(values, rows * row_len, "rows of {row_len} values");
    assert_eq!(bytes.len(), rows * format.row_bytes(row_len), "bytes of {rows} rows of {row_len} {format}");
}

/// [`dequantise`] for a known format.
#[inline(always)]
pub(super) fn dequantise_blocks<B: Block>(bytes: &[u8], row_len: usize, out: &mut [f32]) {
    let row_bytes = row_len.div_ceil(B::VALUES) * B::BYTES;
    for (row, out) in bytes.chunks_exact(row_bytes.max(1)).zip(out.chunks_exact_mut(row_len.max(1))) {
        for (block, out) in row.chunks_exact(B::BYTES).zip(out.chunks_mut(B::VALUES)) {
            for (index, out) in out.chunks_mut(GROUP).enumerate() {
                B::part(block, index).dequantise(out);
            }
        }
    }
}

#[inline(always)]
fn quantise_blocks<B: Block>(values: &[f32], row_len: usize, bytes: &mut [u8]) {
    /// Values of the largest block.
    const LARGEST: usize = 256;
    let row_bytes = row_len.div_ceil(B::VALUES) * B::BYTES;
    for (values, row) in values.chunks_exact(row_len.max(1)).zip(bytes.chunks_exact_mut(row_bytes.max(1))) {
        for (values, block) in values.chunks(B::VALUES).zip(row.chunks_exact_mut(B::BYTES)) {
            let mut filled = [0.0; LARGEST];
            let values = match values.len() == B::VALUES {
                true => values,
                false => {
                    filled[..values.len()].copy_from_slice(values);
                    &filled[..B::VALUES]
                }
            };
            B::encode(values, block);
        }
    }
}

#[inline(always)]
fn dot_blocks<B: Block>(row: &[u8], x: &Int8Row) -> f32 {
    let groups = B::VALUES / GROUP;
    let mut sum = 0.0;
    for (i, block) in row.chunks_exact(B::BYTES).enumerate() {
        for index in 0..groups {
            let (part, group) = (B::part(block, index), groups * i + index);
            let product = |half: usize| -> i32 {
                let pairs =
                    part.quants[16 * half..].iter().zip(&x.groups[group].quants[16 * half..]).take(16);
                pairs.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
            };
            let scaled = part.scales[0] * product(0) as f32 + part.scales[1] * product(1) as f32;
            sum += x.groups[group].scale * scaled;
            if B::OFFSET {
                sum += part.offset * x.sums[group];
            }
        }
    }
    sum
}
