//! Attention in bf16, in the processor's matrix registers.

use burn::tensor::DType;
use half::bf16;
use half::slice::HalfFloatSliceExt;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use tg_llava_x86::{PackedColumns, PackedRows, Tiles};

use super::super::zeros;
use super::{Bias, Heads, Sizes, softmax};

/// Queries of one task: two blocks of the registers' rows.
const QUERIES: usize = 64;

/// As [`super::attend`], of bf16 alone, `[batch, query_len, heads, head_dim]`: scores and their softmax are f32, weights are rounded to
/// bf16, sums are f32.
pub(super) fn attend(
    tiles: Tiles,
    heads: [&Heads; 3],
    bias: Option<&Bias>,
    sizes: Sizes,
) -> Option<Vec<bf16>> {
    let [query, key, value] = heads;
    if heads.iter().any(|heads| heads.tensor.dtype() != DType::BF16) {
        return None;
    }
    let Sizes { batch, kv_heads, query_len, key_len, head_dim, .. } = sizes;
    let packed: Vec<[PackedColumns; 2]> = (0..batch * kv_heads)
        .into_par_iter()
        .map(|index| {
            let rows = |heads: &Heads| {
                let mut rows = Vec::with_capacity(key_len * head_dim);
                let values: &[bf16] = heads.tensor.storage();
                for row in 0..key_len {
                    heads.push(values, [index / kv_heads, index % kv_heads, row], head_dim, &mut rows);
                }
                rows
            };
            let (mut keys, mut values) = (PackedColumns::new(head_dim), PackedColumns::new(key_len));
            tiles.pack_columns(&mut keys, rows(key).reinterpret_cast());
            tiles.pack_rows(&mut values, rows(value).reinterpret_cast(), head_dim);
            [keys, values]
        })
        .collect();

    let width = sizes.heads * head_dim;
    let mut out = zeros(batch * query_len * width);
    let tasks = out.par_chunks_mut(query_len * width).zip(packed.par_chunks(kv_heads)).enumerate();
    tasks.for_each(|(sample, (out, packed))| {
        out.par_chunks_mut(QUERIES * width).enumerate().for_each(|(block, out)| {
            let first = block * QUERIES;
            pulp::Arch::new().dispatch(Queries { tiles, out, query, packed, bias, sample, first, sizes });
        });
    });
    Some(out)
}

/// All heads of a few queries of a sample.
struct Queries<'a> {
    tiles: Tiles,
    /// `[queries, heads, head_dim]`
    out: &'a mut [bf16],
    query: &'a Heads,
    packed: &'a [[PackedColumns; 2]],
    bias: Option<&'a Bias>,
    sample: usize,
    first: usize,
    sizes: Sizes,
}

impl WithSimd for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, out, query, packed, bias, sample, first, sizes } = self;
        let Sizes { heads, kv_heads, key_len, head_dim, .. } = sizes;
        let queries = out.len() / (heads * head_dim);
        let last = bias.map_or(key_len, |bias| bias.last_seen(sample, first..first + queries));
        let scale = sizes.scale();
        let query_values: &[bf16] = query.tensor.storage();
        let mut rows = Vec::with_capacity(queries * head_dim);
        let mut scores = vec![0.0f32; queries * last];
        let mut weights = vec![bf16::ZERO; queries * last];
        for head in 0..heads {
            rows.clear();
            for row in 0..queries {
                query.push(query_values, [sample, head, first + row], head_dim, &mut rows);
            }
            let [keys, values] = &packed[head * kv_heads / heads];
            let rows = PackedRows::new(rows.reinterpret_cast(), head_dim);
            tiles.multiply(&rows, keys, last, |row, column, sums| {
                let scores = &mut scores[row * last + column..][..sums.len()];
                scores.iter_mut().zip(sums).for_each(|(score, sum)| *score = *sum * scale);
            });
            softmax(simd, (&mut scores, last), last, |row| bias.map(|bias| bias.row(sample, first + row)));
            tiles.narrow(weights.reinterpret_cast_mut(), &scores);
            let rows = PackedRows::new(weights.reinterpret_cast(), last);
            tiles.multiply_narrow(&rows, values, (head_dim, None), |row, column, sums| {
                let place = (row * heads + head) * head_dim + column;
                out[place..place + sums.len()].reinterpret_cast_mut().copy_from_slice(sums);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, Tolerance};

    use super::super::super::tests::random;
    use super::super::attention;
    use super::*;
    use crate::nn::{cast_to, causal_bias};

    /// What f32 gives for the same values, up to the rounding of weights and outputs.
    #[test]
    fn equals_attention_in_f32() {
        for (lens, dim) in [([1, 1], 16), ([5, 5], 16), ([70, 70], 20), ([100, 300], 72)] {
            let [query_len, key_len] = lens;
            let all = [[2, 6, query_len, dim], [2, 2, key_len, dim], [2, 2, key_len, dim]];
            let [q, k, v] = all.map(|shape| cast_to(random(shape, 1) * 0.3, DType::BF16));
            let wide = [&q, &k, &v].map(|x| cast_to(x.clone(), DType::F32));
            for bias in [None, Some(causal_bias(key_len - query_len..key_len, key_len, &q.device()))] {
                let mine: Tensor<4> = attention(&q, &k, &v, bias.as_ref()).expect("flex");
                assert_eq!(mine.dtype(), DType::BF16);
                let [q, k, v] = &wide;
                let exact = attention(q, k, v, bias.as_ref()).expect("flex");
                let tolerance = Tolerance::rel_abs(8e-3, 8e-3);
                cast_to(mine, DType::F32).to_data().assert_approx_eq::<f32>(&exact.to_data(), tolerance);
            }
        }
    }
}
