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
        // Two rows of blocks at a time, so that one sum need not wait for the other.
        let mut rows = products.blocks.chunks_exact(2 * products.row_bytes);
        let mut out = products.out.chunks_exact_mut(2 * R);
        for (rows, out) in (&mut rows).zip(&mut out) {
            let (first, second) = rows.split_at(products.row_bytes);
            dots::<B, R, 2>(simd, [first, second], &x, out);
        }
        if !rows.remainder().is_empty() {
            dots::<B, R, 1>(simd, [rows.remainder()], &x, out.into_remainder());
        }
    }
}

/// The products of `C` rows of blocks with `R` rows of activations.
#[inline(always)]
fn dots<B: Block, const R: usize, const C: usize>(
    simd: V3,
    rows: [&[u8]; C],
    x: &[&Int8Row; R],
    out: &mut [f32],
) {
    let groups = B::VALUES / GROUP;
    let mut sums = [[simd.splat_f32x8(0.0); R]; C];
    let mut offsets = [[0.0f32; R]; C];
    for i in 0..rows[0].len() / B::BYTES {
        for row in rows {
            // The same place of the next rows.
            prefetch(row, i * B::BYTES + C * row.len());
            if B::BYTES > LINE {
                prefetch(row, i * B::BYTES + LINE + C * row.len());
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
    for (out, (sum, offset)) in out.iter_mut().zip(sums.as_flattened().iter().zip(offsets.as_flattened())) {
        *out = simd.reduce_sum_f32s(*sum) + offset;
    }
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
