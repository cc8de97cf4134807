//! Blocks of two rows side by side in registers of 512 bits.

use std::arch::x86_64::__m512i;

use pulp::x86::V4;
use pulp::{cast, f32x8, f32x16};
use tg_llava_x86::{Vnni, prefetch};

use super::stored::{SCALES, Stored};
use super::*;
use crate::quant::ggml::{Bytes, GROUP, Int8Group, all_halves};

/// Rows of blocks that are multiplied at a time.
pub(super) const ROWS: usize = 2 * PAIRS;

/// Registers of sums for each row of activations.
const PAIRS: usize = 2;

/// How the products of bytes are added up.
pub(super) trait Products512: Copy {
    fn v4(self) -> V4;

    /// Sums of four products each, of what is stored, less `B::ZERO`, with activations. `minus_zeros`: what `B::ZERO` takes off.
    fn dot<B: Block>(self, stored: __m512i, x: __m512i, minus_zeros: __m512i) -> __m512i;
}

impl Products512 for V4 {
    #[inline(always)]
    fn v4(self) -> V4 {
        self
    }

    #[inline(always)]
    fn dot<B: Block>(self, stored: __m512i, x: __m512i, minus_zeros: __m512i) -> __m512i {
        let (avx512f, avx512bw) = (self.avx512f, self.avx512bw);
        let ones = avx512f._mm512_set1_epi16(1);
        // Pairs of products stay below 2^15: 2 * 63 * 127, or 2 * 128 * 127.
        if B::ZERO < 128 {
            let pairs = avx512bw._mm512_maddubs_epi16(stored, x);
            return avx512f._mm512_add_epi32(avx512bw._mm512_madd_epi16(pairs, ones), minus_zeros);
        }
        let w = avx512f._mm512_xor_si512(stored, avx512f._mm512_set1_epi8(B::ZERO as i8));
        let negative = avx512bw._mm512_movepi8_mask(w);
        let signed = avx512bw._mm512_mask_sub_epi8(x, negative, avx512f._mm512_setzero_si512(), x);
        let pairs = avx512bw._mm512_maddubs_epi16(avx512bw._mm512_abs_epi8(w), signed);
        avx512bw._mm512_madd_epi16(pairs, ones)
    }
}

/// With an instruction of its own.
impl Products512 for (V4, Vnni) {
    #[inline(always)]
    fn v4(self) -> V4 {
        self.0
    }

    #[inline(always)]
    fn dot<B: Block>(self, stored: __m512i, x: __m512i, minus_zeros: __m512i) -> __m512i {
        self.1.add_products(minus_zeros, stored, x)
    }
}

/// Whole [`ROWS`] of rows of blocks.
pub(super) struct Wide<'a, I, B, const R: usize>(pub Task<'a, I, B, R>);

impl<I: Products512, B: Stored, const R: usize> NullaryFnOnce for Wide<'_, I, B, R> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Task { simd, x, products, .. } = self.0;
        let halves = all_halves();
        // As many parts of the matrix, each of which is read front to back.
        let part = products.blocks.len() / products.row_bytes / ROWS;
        for first in 0..part {
            let mut rows = [products.blocks; ROWS];
            for (index, row) in rows.iter_mut().enumerate() {
                *row = &products.blocks[(first + index * part) * products.row_bytes..][..products.row_bytes];
            }
            let sums = dots::<I, B, R>(simd, halves, rows, &x);
            for (index, sums) in sums.iter().enumerate() {
                products.out[(first + index * part) * R..][..R].copy_from_slice(sums);
            }
        }
    }
}

/// The products of [`ROWS`] rows of blocks with `R` rows of activations.
#[inline(always)]
fn dots<I: Products512, B: Stored, const R: usize>(
    products: I,
    halves: &[f32; 1 << 16],
    rows: [&[u8]; ROWS],
    x: &[&Int8Row; R],
) -> [[f32; R]; ROWS] {
    let simd = products.v4();
    let groups = B::VALUES / GROUP;
    let count = rows[0].len() / B::BYTES;
    let mut found = [[0.0; R]; ROWS];
    // Loops and no closures, which would not be compiled for the wide registers.
    let mut opened: [std::slice::Iter<'_, B::Bytes>; ROWS] = Default::default();
    for (opened, row) in opened.iter_mut().zip(rows) {
        *opened = B::Bytes::all(row).iter();
    }
    let mut activations: [(&[Int8Group], &[f32]); R] = [(&[], &[]); R];
    for (activations, x) in activations.iter_mut().zip(x) {
        *activations = (&x.groups[..count * groups], &x.sums[..count * groups]);
    }
    let mut sums = [[simd.splat_f32x16(0.0); R]; PAIRS];
    let mut offsets = [[simd.splat_f32x8(0.0); R]; ROWS];
    for block in 0..count {
        let mut blocks = rows;
        let mut scales = [[0.0; SCALES]; ROWS];
        for row in 0..ROWS {
            let Some(next) = opened[row].next() else { return found };
            blocks[row] = next.as_ref();
            for line in 0..B::BYTES.div_ceil(LINE) {
                prefetch(blocks[row], AHEAD + line * LINE);
            }
            let offsets_of_block = B::scales(simd, halves, blocks[row], &mut scales[row]);
            for r in 0..if B::OFFSET { R } else { 0 } {
                let sums_of_x = sums_of_block(&activations[r].1[block * groups..][..groups]);
                offsets[row][r] = simd.mul_add_f32x8(offsets_of_block, sums_of_x, offsets[row][r]);
            }
        }
        for index in 0..groups {
            let mut quants = [simd.avx512f._mm512_setzero_si512(); R];
            let mut minus_zeros = quants;
            let mut scales_of_x = [simd.splat_f32x16(0.0); R];
            for r in 0..R {
                let x = &activations[r].0[block * groups + index];
                quants[r] = simd.avx512f._mm512_broadcast_i64x4(cast(x.quants));
                minus_zeros[r] = zeros::<B>(simd, x);
                scales_of_x[r] = simd.splat_f32x16(x.scale);
            }
            for (pair, sums) in sums.iter_mut().enumerate() {
                let (low, high) = (2 * pair, 2 * pair + 1);
                let weights = B::quants(simd, [blocks[low], blocks[high]], index);
                let scales = in_lanes::<B>(simd, [&scales[low], &scales[high]], index);
                for r in 0..R {
                    let scales = simd.mul_f32x16(scales, scales_of_x[r]);
                    let product = products.dot::<B>(weights, quants[r], minus_zeros[r]);
                    let product = cast(simd.avx512f._mm512_cvtepi32_ps(product));
                    sums[r] = simd.mul_add_f32x16(product, scales, sums[r]);
                }
            }
        }
    }
    for (row, found) in found.iter_mut().enumerate() {
        for (r, found) in found.iter_mut().enumerate() {
            let [low, high]: [f32x8; 2] = cast(sums[row / 2][r]);
            let sum = if row % 2 == 0 { low } else { high };
            *found = Simd::reduce_sum_f32s(*simd, simd.add_f32x8(sum, offsets[row][r]));
        }
    }
    found
}

/// The sums of a block's activations, one for each group; zeros behind them.
#[inline(always)]
fn sums_of_block(sums: &[f32]) -> f32x8 {
    let mut all = [0.0; 8];
    for (to, sum) in all.iter_mut().zip(sums) {
        *to = *sum;
    }
    cast(all)
}

/// What `B::ZERO` takes off four products each, of two rows.
#[inline(always)]
fn zeros<B: Block>(simd: V4, x: &Int8Group) -> __m512i {
    let fours = simd.avx2._mm256_broadcastsi128_si256(cast(x.minus_fours));
    let fours = simd.avx512f._mm512_cvtepi16_epi32(fours);
    // A power of two, or nothing.
    let places = simd.avx512f._mm512_set1_epi32(B::ZERO.trailing_zeros() as i32);
    match B::ZERO {
        0 => simd.avx512f._mm512_setzero_si512(),
        _ => simd.avx512f._mm512_sllv_epi32(fours, places),
    }
}

/// The scale of each lane, of two rows: of a group, or of each of its halves.
#[inline(always)]
fn in_lanes<B: Stored>(simd: V4, [low, high]: [&[f32; SCALES]; 2], index: usize) -> f32x16 {
    let avx512f = simd.avx512f;
    if !B::HALVES {
        let low = avx512f._mm512_set1_ps(low[index]);
        let high = simd.sse._mm_set_ss(high[index]);
        return cast(avx512f._mm512_mask_broadcastss_ps(low, 0xff00, high));
    }
    let two = |scales: &[f32; SCALES]| cast::<_, f64>([scales[2 * index], scales[2 * index + 1]]);
    let low = avx512f._mm512_set1_pd(two(low));
    let high = simd.sse2._mm_set_sd(two(high));
    let both = avx512f._mm512_mask_broadcastsd_pd(low, 0xf0, high);
    let halves = avx512f._mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1);
    cast(avx512f._mm512_permutevar_ps(cast(both), halves))
}
