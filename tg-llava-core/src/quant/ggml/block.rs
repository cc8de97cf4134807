use std::sync::OnceLock;

use half::f16;

use super::GROUP;

/// 32 values of a block, taken apart: value `i` is `quants[i] * scales[i / 16] + offset`.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The stored integers.
    pub quants: [i8; GROUP],
    /// One for each half.
    pub scales: [f32; 2],
    /// What is added; -0.0, which changes no bit of any sum, where the format has no such thing.
    pub offset: f32,
}

/// A block format: what its bytes mean, and how values become such bytes.
pub trait Block {
    /// A block's bytes.
    type Bytes: Bytes;

    /// Values in a block, a multiple of 32.
    const VALUES: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// What is taken off the integers, read as unsigned ones; of signed bytes the top bit is turned for that.
    const ZERO: u8;
    /// Whether something is added to `quant * scale`.
    const OFFSET: bool;

    /// Values `32 * index ..` of a block.
    fn part(block: &[u8], index: usize) -> Part;

    /// Writes [`Block::VALUES`] values as one block, by the steps of llama.cpp's `quantize_row_*_ref`.
    fn encode(values: &[f32], block: &mut [u8]);
}

/// Bytes of a fixed number.
pub trait Bytes: AsRef<[u8]> {
    /// As many such as there are.
    fn all(bytes: &[u8]) -> &[Self]
    where
        Self: Sized;
}

impl<const N: usize> Bytes for [u8; N] {
    #[inline(always)]
    fn all(bytes: &[u8]) -> &[Self] {
        bytes.as_chunks().0
    }
}

impl Part {
    /// The values as floats.
    #[inline(always)]
    pub fn dequantise(&self, out: &mut [f32]) {
        for (half, (out, quants)) in out.chunks_mut(16).zip(self.quants.chunks(16)).enumerate() {
            for (out, &quant) in out.iter_mut().zip(quants) {
                *out = f32::from(quant) * self.scales[half] + self.offset;
            }
        }
    }
}

/// The bytes at `place`.
#[inline(always)]
pub(crate) fn array<const N: usize>(block: &[u8], place: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[place..place + N]);
    bytes
}

/// The f16 at `place`.
#[inline(always)]
pub(super) fn read_f16(block: &[u8], place: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes(array(block, place)))
}

/// Every f16 as f32, by its bits.
pub fn all_halves() -> &'static [f32; 1 << 16] {
    static ALL: OnceLock<Box<[f32; 1 << 16]>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = Box::new([0.0; 1 << 16]);
        all.iter_mut().zip(0..=u16::MAX).for_each(|(value, bits)| *value = f16_to_f32(bits));
        all
    })
}

/// What [`f16::to_f32`] gives, without its look at the processor, without branches that depend on the value, and without numbers that
/// are subnormal as f32, which processors compute with a hundred times more slowly: scales of K formats often are, as f16.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    const EXPONENT: u16 = 0x7c00;
    /// Difference of the exponents' biases, 127 - 15.
    const BIAS: u32 = 112 << 23;
    /// 2^-14, the smallest normal f16.
    const NORMAL: u32 = 113 << 23;
    let magnitude = (u32::from(bits) & 0x7fff) << 13;
    let sign = (u32::from(bits) & 0x8000) << 16;
    if bits & EXPONENT == EXPONENT {
        return f32::from_bits(magnitude | 0x7f80_0000 | sign);
    }
    // All ones for a subnormal: it becomes 2^-14 and a bit, less 2^-14.
    let subnormal = u32::from(bits & EXPONENT == 0).wrapping_neg();
    let value =
        f32::from_bits(magnitude + BIAS + (subnormal & (NORMAL - BIAS))) - f32::from_bits(subnormal & NORMAL);
    f32::from_bits(value.to_bits() | sign)
}

/// The nearest whole number, to even from halfway, of what is not far from 0.
#[inline(always)]
pub(super) fn nearest(value: f32) -> f32 {
    /// 1.5 * 2^23: here the distance of two floats is 1.
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

/// Writes `value` as f16 at `place`.
#[inline(always)]
pub(super) fn write_f16(block: &mut [u8], place: usize, value: f32) {
    block[place..place + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// `1 / value`, or 0 for 0.
#[inline(always)]
pub(super) fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_becomes_its_single() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(bits), f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:x}");
        }
    }
}
