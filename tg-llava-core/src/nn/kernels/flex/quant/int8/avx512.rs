//! Blocks of two rows side by side in registers of 512 bits; each lane's sums are those of [`super::avx2`], to the bit.

use std::arch::x86_64::__m512i;

use pulp::bytemuck::cast_slice;
use pulp::x86::V4;
use pulp::{cast, f32x8, f32x16, i8x32};
use tg_llava_x86::prefetch;

use super::*;
use crate::quant::ggml::{GROUP, Part};

/// Rows of blocks that are multiplied at a time.
pub(super) const ROWS: usize = 2 * PAIRS;

/// Registers of sums for each row of activations.
const PAIRS: usize = 2;

impl<B: Block, const R: usize> NullaryFnOnce for Task<'_, V4, B, R> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, x, products, .. } = self;
        let rows = products.blocks.chunks_exact(ROWS * products.row_bytes);
        for (rows, out) in rows.zip(products.out.chunks_exact_mut(ROWS * R)) {
            dots::<B, R>(simd, rows, &x, out);
        }
    }
}

/// The products of [`ROWS`] rows of blocks with `R` rows of activations.
#[inline(always)]
fn dots<B: Block, const R: usize>(simd: V4, rows: &[u8], x: &[&Int8Row; R], out: &mut [f32]) {
    let groups = B::VALUES / GROUP;
    let row_bytes = rows.len() / ROWS;
    let mut quants: [&[i8x32]; R] = [&[]; R];
    for (quants, x) in quants.iter_mut().zip(x) {
        *quants = cast_slice(&x.quants);
    }
    // Loops and no closures, which would not be compiled for the wide registers.
    let mut sums = [[simd.splat_f32x16(0.0); R]; PAIRS];
    let mut offsets = [[0.0f32; R]; ROWS];
    for block in 0..row_bytes / B::BYTES {
        let mut blocks = [rows; ROWS];
        for (row, part) in blocks.iter_mut().enumerate() {
            let place = row * row_bytes + block * B::BYTES;
            // The same place of the next rows.
            for line in 0..B::BYTES.div_ceil(LINE) {
                prefetch(rows, place + ROWS * row_bytes + line * LINE);
            }
            *part = &rows[place..place + B::BYTES];
        }
        for index in 0..groups {
            let group = block * groups + index;
            for pair in 0..PAIRS {
                let parts = [B::part(blocks[2 * pair], index), B::part(blocks[2 * pair + 1], index)];
                let weights = side_by_side(simd, parts[0].quants, parts[1].quants);
                let scales = scales::<B>(simd, [blocks[2 * pair], blocks[2 * pair + 1]], &parts);
                for r in 0..R {
                    let x_quants = simd.avx512f._mm512_broadcast_i64x4(cast(quants[r][group]));
                    let scales = simd.mul_f32x16(scales, simd.splat_f32x16(x[r].scales[group]));
                    let product = dot::<B>(simd, weights, x_quants);
                    sums[pair][r] = simd.mul_add_f32x16(product, scales, sums[pair][r]);
                    if B::OFFSET {
                        offsets[2 * pair][r] += parts[0].offset * x[r].sums[group];
                        offsets[2 * pair + 1][r] += parts[1].offset * x[r].sums[group];
                    }
                }
            }
        }
    }
    for (row, out) in out.chunks_exact_mut(R).enumerate() {
        for (r, out) in out.iter_mut().enumerate() {
            let [low, high]: [f32x8; 2] = cast(sums[row / 2][r]);
            let sum = if row % 2 == 0 { low } else { high };
            *out = Simd::reduce_sum_f32s(*simd, sum) + offsets[row][r];
        }
    }
}

#[inline(always)]
fn side_by_side(simd: V4, low: [i8; GROUP], high: [i8; GROUP]) -> __m512i {
    let low = simd.avx512f._mm512_castsi256_si512(cast(low));
    simd.avx512f._mm512_inserti64x4::<1>(low, cast(high))
}

/// The scale of each lane: eight lanes for each row.
#[inline(always)]
fn scales<B: Block>(simd: V4, blocks: [&[u8]; 2], parts: &[Part; 2]) -> f32x16 {
    if B::SCALE_FIRST {
        let bits = |block: &[u8]| i16::from_le_bytes([block[0], block[1]]);
        let [low, high] = [bits(blocks[0]), bits(blocks[1])].map(|bits| simd.sse2._mm_set1_epi16(bits));
        return cast(simd.avx512f._mm512_cvtph_ps(simd.avx._mm256_set_m128i(high, low)));
    }
    let [[a, b], [c, d]] = [parts[0].scales, parts[1].scales];
    f32x16(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d)
}

/// Sums of four products each.
#[inline(always)]
fn dot<B: Block>(simd: V4, w: __m512i, x: __m512i) -> f32x16 {
    let (avx512f, avx512bw) = (simd.avx512f, simd.avx512bw);
    // Pairs of products stay below 2^15: 2 * 128 * 127.
    let pairs = match B::SIGNED {
        true => {
            let negative = avx512bw._mm512_movepi8_mask(w);
            let zero = avx512f._mm512_setzero_si512();
            let signed = avx512bw._mm512_mask_sub_epi8(x, negative, zero, x);
            avx512bw._mm512_maddubs_epi16(avx512bw._mm512_abs_epi8(w), signed)
        }
        false => avx512bw._mm512_maddubs_epi16(w, x),
    };
    let sums = avx512bw._mm512_madd_epi16(pairs, avx512f._mm512_set1_epi16(1));
    cast(avx512f._mm512_cvtepi32_ps(sums))
}
