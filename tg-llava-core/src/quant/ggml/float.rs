//! Plain floats as bytes, beside the block formats.

use half::{bf16, f16};

use super::GgmlType;

/// Values of `bytes`; nothing for formats with blocks.
#[inline(always)]
pub(super) fn read(format: GgmlType, bytes: &[u8], out: &mut [f32]) {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match format {
        GgmlType::F32 => {
            fill(out, bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        }
        GgmlType::F16 => fill(out, pairs().map(|b| f16::from_le_bytes(b).to_f32())),
        GgmlType::BF16 => fill(out, pairs().map(|b| bf16::from_le_bytes(b).to_f32())),
        _ => {}
    }
}

/// `values` as bytes; nothing for formats with blocks.
#[inline(always)]
pub(super) fn write(format: GgmlType, values: &[f32], bytes: &mut [u8]) {
    match format {
        GgmlType::F32 => put(values.iter().map(|x| x.to_le_bytes()), bytes),
        GgmlType::F16 => put(values.iter().map(|&x| f16::from_f32(x).to_le_bytes()), bytes),
        GgmlType::BF16 => put(values.iter().map(|&x| bf16::from_f32(x).to_le_bytes()), bytes),
        _ => {}
    }
}

fn put<const N: usize>(values: impl Iterator<Item = [u8; N]>, bytes: &mut [u8]) {
    bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = value);
}

fn fill(out: &mut [f32], values: impl Iterator<Item = f32>) {
    out.iter_mut().zip(values).for_each(|(out, x)| *out = x);
}
