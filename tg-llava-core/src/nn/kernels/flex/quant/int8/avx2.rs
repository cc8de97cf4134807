//! Blocks of 32 in registers of 256 bits.

use std::arch::x86_64::__m256i;

use pulp::bytemuck::cast;
use pulp::f32x8;
use pulp::x86::V3;
use tg_llava_x86::prefetch;

use super::*;
use crate::quant::ggml::GROUP;

impl<B: Block, const R: usize> NullaryFnOnce for Task<'_, V3, B, R> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, x, products, .. } = self;
        // Two rows of blocks at a time, so that one sum need not wait for the other: of two parts that are each read front to back.
        let rows = products.blocks.len() / products.row_bytes;
        let row = |index| &products.blocks[index * products.row_bytes..][..products.row_bytes];
        let part = rows / 2;
        for first in 0..part {
            let sums = dots::<B, R, 2>(simd, [row(first), row(first + part)], &x);
            for (index, sums) in [first, first + part].into_iter().zip(&sums) {
                products.out[index * R..][..R].copy_from_slice(sums);
            }
        }
        if 2 * part < rows {
            let [sums] = dots::<B, R, 1>(simd, [row(2 * part)], &x);
            products.out[2 * part * R..].copy_from_slice(&sums);
        }
    }
}

/// The products of `C` rows of blocks with `R` rows of activations.
#[inline(always)]
fn dots<B: Block, const R: usize, const C: usize>(
    simd: V3,
    rows: [&[u8]; C],
    x: &[&Int8Row; R],
) -> [[f32; R]; C] {
    let groups = B::VALUES / GROUP;
    let mut sums = [[simd.splat_f32x8(0.0); R]; C];
    let mut offsets = [[0.0f32; R]; C];
    for i in 0..rows[0].len() / B::BYTES {
        for row in rows {
            for line in 0..B::BYTES.div_ceil(LINE) {
                prefetch(row, i * B::BYTES + AHEAD + line * LINE);
            }
        }
        let blocks = rows.map(|row| &row[i * B::BYTES..(i + 1) * B::BYTES]);
        let x = x.map(|x| (&x.groups[i * groups..(i + 1) * groups], &x.sums[i * groups..(i + 1) * groups]));
        for index in 0..groups {
            for c in 0..C {
                let part = B::part(blocks[c], index);
                let [low, high] = part.scales;
                let scale = f32x8(low, low, low, low, high, high, high, high);
                for r in 0..R {
                    let (x, sums_of_x) = (&x[r].0[index], x[r].1);
                    let product = dot::<B>(simd, cast(part.quants), cast(x.quants));
                    let scale = simd.mul_f32s(scale, simd.splat_f32x8(x.scale));
                    sums[c][r] = simd.mul_add_f32x8(product, scale, sums[c][r]);
                    if B::OFFSET {
                        offsets[c][r] += part.offset * sums_of_x[index];
                    }
                }
            }
        }
    }
    for (sums, offsets) in sums.iter().zip(&mut offsets) {
        for (sum, offset) in sums.iter().zip(offsets) {
            *offset += simd.reduce_sum_f32s(*sum);
        }
    }
    offsets
}

/// Sums of four products each; those of the first 16 values in the lower half.
#[inline(always)]
fn dot<B: Block>(simd: V3, w: __m256i, x: __m256i) -> f32x8 {
    let (avx, avx2) = (simd.avx, simd.avx2);
    // Pairs of products stay below 2^15: 2 * 128 * 127.
    let pairs = match B::ZERO > 0 {
        true => avx2._mm256_maddubs_epi16(avx2._mm256_abs_epi8(w), avx2._mm256_sign_epi8(x, w)),
        false => avx2._mm256_maddubs_epi16(w, x),
    };
    let sums = avx2._mm256_madd_epi16(pairs, avx._mm256_set1_epi16(1));
    simd.convert_i32x8_to_f32x8(cast(sums))
}
