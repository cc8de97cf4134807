//! What blocks of two rows hold, side by side in registers of 512 bits: what [`Block::part`] says, in few instructions.

use std::arch::x86_64::__m512i;

use pulp::x86::V4;
use pulp::{cast, f32x8};

use crate::quant::ggml::{Block, GROUP, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, array};

/// Most scales of a block.
pub(super) const SCALES: usize = 16;

/// A format whose blocks are read in pairs.
pub(super) trait Stored: Block {
    /// Whether each half of a group has a scale of its own.
    const HALVES: bool;

    /// Integers `32 * index ..` of both blocks as they are stored, from 0 on.
    fn quants(simd: V4, blocks: [&[u8]; 2], index: usize) -> __m512i;

    /// Fills in the scales of a block, of its groups or of their halves; returns what is added in each group. `halves`: every f16 as f32;
    /// the instruction for it waits for the same parts of the processor as the products.
    fn scales(simd: V4, halves: &[f32; 1 << 16], block: &[u8], scales: &mut [f32; SCALES]) -> f32x8;
}

/// A format with blocks of one group that begin with the scale.
macro_rules! one_group {
    ($format:ty, offset: $offset:expr, $simd:ident, $blocks:ident => $quants:expr) => {
        impl Stored for $format {
            const HALVES: bool = false;

            #[inline(always)]
            fn quants($simd: V4, $blocks: [&[u8]; 2], _: usize) -> __m512i {
                $quants
            }

            #[inline(always)]
            fn scales(simd: V4, halves: &[f32; 1 << 16], block: &[u8], scales: &mut [f32; SCALES]) -> f32x8 {
                scales[0] = half(halves, block, 0);
                let offset: Option<usize> = $offset;
                match offset {
                    Some(place) => f32x8(half(halves, block, place), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
                    None => simd.splat_f32x8(0.0),
                }
            }
        }
    };
}

one_group!(Q4_0, offset: None, simd, blocks => low_bits(simd, blocks, 2));
one_group!(Q4_1, offset: Some(2), simd, blocks => low_bits(simd, blocks, 4));
one_group!(Q5_0, offset: None, simd, blocks => with_bit_4(simd, low_bits(simd, blocks, 6), blocks, 2));
one_group!(Q5_1, offset: Some(2), simd, blocks => with_bit_4(simd, low_bits(simd, blocks, 8), blocks, 4));
one_group!(Q8_0, offset: None, simd, blocks => {
    let zero = simd.avx512f._mm512_set1_epi8(Self::ZERO as i8);
    simd.avx512f._mm512_xor_si512(bytes(simd, blocks, 2), zero)
});

impl Stored for Q4K {
    const HALVES: bool = false;

    #[inline(always)]
    fn quants(simd: V4, blocks: [&[u8]; 2], index: usize) -> __m512i {
        nibbles(simd, bytes(simd, blocks, 16 + index / 2 * GROUP), index % 2)
    }

    #[inline(always)]
    fn scales(simd: V4, halves: &[f32; 1 << 16], block: &[u8], scales: &mut [f32; SCALES]) -> f32x8 {
        six_bit_scales(simd, halves, block, scales)
    }
}

impl Stored for Q5K {
    const HALVES: bool = false;

    #[inline(always)]
    fn quants(simd: V4, blocks: [&[u8]; 2], index: usize) -> __m512i {
        let (avx512f, avx512bw) = (simd.avx512f, simd.avx512bw);
        let low = nibbles(simd, bytes(simd, blocks, 48 + index / 2 * GROUP), index % 2);
        let bit = avx512f._mm512_set1_epi8((1u8 << index) as i8);
        let set = avx512bw._mm512_test_epi8_mask(bytes(simd, blocks, 16), bit);
        avx512bw._mm512_mask_add_epi8(low, set, low, avx512f._mm512_set1_epi8(16))
    }

    #[inline(always)]
    fn scales(simd: V4, halves: &[f32; 1 << 16], block: &[u8], scales: &mut [f32; SCALES]) -> f32x8 {
        six_bit_scales(simd, halves, block, scales)
    }
}

impl Stored for Q6K {
    const HALVES: bool = true;

    #[inline(always)]
    fn quants(simd: V4, blocks: [&[u8]; 2], index: usize) -> __m512i {
        let avx512f = simd.avx512f;
        let (half, group) = (index / 4, index % 4);
        let low = nibbles(simd, bytes(simd, blocks, 64 * half + GROUP * (group % 2)), group / 2);
        // Bits `2 * group` and the next of each byte become bits 4 and 5; what comes from other bytes is masked.
        let places = avx512f._mm512_set1_epi32(2 * group as i32 - 4);
        let high = avx512f._mm512_rorv_epi32(bytes(simd, blocks, 128 + GROUP * half), places);
        avx512f._mm512_or_si512(low, avx512f._mm512_and_si512(high, avx512f._mm512_set1_epi8(0x30)))
    }

    #[inline(always)]
    fn scales(simd: V4, halves: &[f32; 1 << 16], block: &[u8], scales: &mut [f32; SCALES]) -> f32x8 {
        let avx512f = simd.avx512f;
        let stored = avx512f._mm512_cvtepi8_epi32(cast(array::<16>(block, 192)));
        let scale = simd.splat_f32x16(half(halves, block, 208));
        *scales = cast(simd.mul_f32x16(cast(avx512f._mm512_cvtepi32_ps(stored)), scale));
        simd.splat_f32x8(0.0)
    }
}

/// The f16 at `place`.
#[inline(always)]
fn half(halves: &[f32; 1 << 16], block: &[u8], place: usize) -> f32 {
    halves[usize::from(u16::from_le_bytes(array(block, place)))]
}

/// 32 bytes of both blocks.
#[inline(always)]
fn bytes(simd: V4, [low, high]: [&[u8]; 2], place: usize) -> __m512i {
    let low = simd.avx512f._mm512_castsi256_si512(cast(array::<GROUP>(low, place)));
    simd.avx512f._mm512_inserti64x4::<1>(low, cast(array::<GROUP>(high, place)))
}

/// The low halves of the bytes, or the high ones.
#[inline(always)]
fn nibbles(simd: V4, bytes: __m512i, high: usize) -> __m512i {
    let places = simd.avx512f._mm512_set1_epi32(4 * high as i32);
    simd.avx512f
        ._mm512_and_si512(simd.avx512f._mm512_srlv_epi32(bytes, places), simd.avx512f._mm512_set1_epi8(15))
}

/// Four bits of 32 values: of the first 16 in the low halves of 16 bytes, of the others in the high ones.
#[inline(always)]
fn low_bits(simd: V4, [low, high]: [&[u8]; 2], place: usize) -> __m512i {
    let avx512f = simd.avx512f;
    let low = avx512f._mm512_broadcast_i32x4(cast(array::<16>(low, place)));
    let bytes = avx512f._mm512_mask_broadcast_i32x4(low, 0xff00, cast(array::<16>(high, place)));
    let places = avx512f._mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4);
    avx512f._mm512_and_si512(avx512f._mm512_srlv_epi32(bytes, places), avx512f._mm512_set1_epi8(15))
}

/// `quants` with bit 4 of each, which are the bits of four bytes.
#[inline(always)]
fn with_bit_4(simd: V4, quants: __m512i, [low, high]: [&[u8]; 2], place: usize) -> __m512i {
    let set = u64::from(u32::from_le_bytes(array(low, place)));
    let set = set | u64::from(u32::from_le_bytes(array(high, place))) << 32;
    simd.avx512bw._mm512_mask_add_epi8(quants, set, quants, simd.avx512f._mm512_set1_epi8(16))
}

/// Scales and offsets of [`Q4K`] and [`Q5K`]: six bits of each for eight groups, four bytes at a time, times an f16.
#[inline(always)]
fn six_bit_scales(simd: V4, halves: &[f32; 1 << 16], block: &[u8], scales: &mut [f32; SCALES]) -> f32x8 {
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    const TWO: u32 = 0x0303_0303;
    let word = |place| u32::from_le_bytes(array(block, place));
    let (a, b, c) = (word(4), word(8), word(12));
    let of_scales = [a & SIX, (c & FOUR) | ((a >> 6) & TWO) << 4];
    let of_minimums = [b & SIX, ((c >> 4) & FOUR) | ((b >> 6) & TWO) << 4];
    // 16 bytes, the scales first.
    let all = cast([of_scales, of_minimums]);
    let all: [f32x8; 2] = cast(simd.avx512f._mm512_cvtepi32_ps(simd.avx512f._mm512_cvtepu8_epi32(all)));
    let [scale, minimum] = [half(halves, block, 0), half(halves, block, 2)];
    scales[..8].copy_from_slice(&cast::<_, [f32; 8]>(simd.mul_f32x8(all[0], simd.splat_f32x8(scale))));
    simd.mul_f32x8(all[1], simd.splat_f32x8(-minimum))
}
