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
    /// Values in a block, a multiple of 32.
    const VALUES: usize;
    /// Bytes of a block.
    const BYTES: usize;

    /// Values `32 * index ..` of a block.
    fn part(block: &[u8], index: usize) -> Part;

    /// Writes [`Block::VALUES`] values as one block, by the steps of llama.cpp's `quantize_row_*_ref`.
    fn encode(values: &[f32], block: &mut [u8]);
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

/// The f16 at `place`.
#[inline(always)]
pub(super) fn read_f16(block: &[u8], place: usize) -> f32 {
    f16::from_le_bytes([block[place], block[place + 1]]).to_f32()
}

/// Writes `value` as f16 at `place`.
pub(super) fn write_f16(block: &mut [u8], place: usize, value: f32) {
    block[place..place + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// `1 / value`, or 0 for 0.
pub(super) fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}
