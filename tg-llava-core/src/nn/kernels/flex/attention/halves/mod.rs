//! Attention in bf16 where the processor multiplies it as it is.

#[cfg(target_arch = "x86_64")]
mod pairs;
mod tiles;

use burn::tensor::DType;
use half::bf16;
use pulp::{Simd, bytemuck::cast_slice_mut};
use rayon::prelude::*;
use tg_llava_x86::Tiles;

#[cfg(target_arch = "x86_64")]
use super::super::pairs::Pairs;
use super::super::{tile::Buffer, zeros};
use super::{Bias, Heads, Sizes, scale, softmax, stride};

/// Queries of one task: two blocks of AMX's rows.
const QUERIES: usize = 64;

/// What computes products of bf16, with sums in f32.
trait Engine: Copy + Send + Sync {
    /// Columns of a product.
    type Columns: Send + Sync;

    /// Rows of `dim` values as columns of as many.
    fn turned(self, rows: &[bf16], dim: usize) -> Option<Self::Columns>;

    /// Rows of `dim` values as they are, for products with columns of one value of each row.
    fn upright(self, rows: &[bf16], dim: usize) -> Option<Self::Columns>;

    /// Computes the task, by [`Queries::compute`], with the registers that are needed.
    fn run(self, task: Queries<'_, Self>);

    /// Products of rows of `dim` values with the first `last` columns, into rows of [`stride`], which have room for a few more.
    fn scores<S: Simd>(self, rows: &[bf16], keys: &Self::Columns, dim_and_last: [usize; 2], out: &mut [f32]);

    /// The nearest values, into a slice of the same length.
    fn narrow(self, to: &mut [bf16], from: &[f32]);

    /// Products of rows of `stride` weights, of which the first `seen` count, with columns of values, rounded, into [`Place`].
    fn outputs(self, weights: &[bf16], sizes: [usize; 2], values: &Self::Columns, place: Place<'_>);
}

/// Rows of `dim` values from `start` on, `stride` apart.
struct Place<'a> {
    out: &'a mut [bf16],
    start: usize,
    stride: usize,
    dim: usize,
}

impl Place<'_> {
    #[inline(always)]
    fn at(&mut self, row: usize, column: usize, len: usize) -> &mut [bf16] {
        &mut self.out[self.start + row * self.stride + column..][..len]
    }
}

/// As [`super::attend`], of bf16 alone, `[batch, query_len, heads, head_dim]`: scores and their softmax are f32, weights are rounded to
/// bf16, sums are f32.
pub(super) fn attend(heads: [&Heads; 3], bias: Option<&Bias>, sizes: Sizes) -> Option<Vec<bf16>> {
    if heads.iter().any(|heads| heads.tensor.dtype() != DType::BF16) {
        return None;
    }
    if let Some(tiles) = Tiles::detect() {
        return attend_by(tiles, heads, bias, sizes);
    }
    #[cfg(target_arch = "x86_64")]
    return attend_by(Pairs::detect()?, heads, bias, sizes);
    #[cfg(not(target_arch = "x86_64"))]
    None
}

fn attend_by<E: Engine>(
    engine: E,
    heads: [&Heads; 3],
    bias: Option<&Bias>,
    sizes: Sizes,
) -> Option<Vec<bf16>> {
    let [query, key, value] = heads;
    let Sizes { batch, kv_heads, query_len, key_len, head_dim, .. } = sizes;
    let packed: Vec<[E::Columns; 2]> = (0..batch * kv_heads)
        .into_par_iter()
        .map(|index| {
            let rows = |heads: &Heads| {
                let mut rows = vec![bf16::ZERO; key_len * head_dim];
                let place = [index / kv_heads, index % kv_heads, 0];
                heads.rows(heads.tensor.storage(), place, head_dim, &mut rows);
                rows
            };
            Some([engine.turned(&rows(key), head_dim)?, engine.upright(&rows(value), head_dim)?])
        })
        .collect::<Option<_>>()?;

    let width = sizes.heads * head_dim;
    let mut out = zeros(batch * query_len * width);
    let tasks = out.par_chunks_mut(query_len * width).zip(packed.par_chunks(kv_heads)).enumerate();
    tasks.for_each(|(sample, (out, packed))| {
        out.par_chunks_mut(QUERIES * width).enumerate().for_each(|(block, out)| {
            let first = block * QUERIES;
            engine.run(Queries { engine, out, query, packed, bias, sample, first, sizes });
        });
    });
    Some(out)
}

/// All heads of a few queries of a sample.
struct Queries<'a, E: Engine> {
    engine: E,
    /// `[queries, heads, head_dim]`
    out: &'a mut [bf16],
    query: &'a Heads,
    packed: &'a [[E::Columns; 2]],
    bias: Option<&'a Bias>,
    sample: usize,
    first: usize,
    sizes: Sizes,
}

impl<E: Engine> Queries<'_, E> {
    #[inline(always)]
    fn compute<S: Simd>(self, simd: S) {
        let Self { engine, out, query, packed, bias, sample, first, sizes } = self;
        let Sizes { heads, kv_heads, key_len, head_dim, .. } = sizes;
        let queries = out.len() / (heads * head_dim);
        let last = bias.map_or(key_len, |bias| bias.last_seen(sample, first..first + queries));
        let (stride, scale) = (stride::<S>(last), scale(head_dim));
        let mut scores = vec![0.0f32; queries * stride];
        // Two values lie where a float could.
        let [mut rows, mut weights] =
            [queries * head_dim, queries * stride].map(|len| Buffer::new(len.div_ceil(2)));
        let rows: &mut [bf16] = &mut cast_slice_mut(rows.values())[..queries * head_dim];
        let weights: &mut [bf16] = &mut cast_slice_mut(weights.values())[..queries * stride];
        for head in 0..heads {
            query.rows(query.tensor.storage(), [sample, head, first], head_dim, rows);
            let [keys, values] = &packed[head * kv_heads / heads];
            engine.scores::<S>(rows, keys, [head_dim, last], &mut scores);
            for scores in scores.chunks_exact_mut(stride) {
                scores[..last].iter_mut().for_each(|score| *score *= scale);
            }
            softmax(simd, (&mut scores, stride), last, |row| bias.map(|bias| bias.row(sample, first + row)));
            for (scores, weights) in scores.chunks_exact(stride).zip(weights.chunks_exact_mut(stride)) {
                engine.narrow(&mut weights[..last], &scores[..last]);
            }
            let place = Place { out, start: head * head_dim, stride: heads * head_dim, dim: head_dim };
            engine.outputs(weights, [stride, last], values, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Tensor, Tolerance};

    use super::super::super::tests::random;
    use super::super::attention;
    use super::*;
    use crate::nn::{cast_to, causal_bias};

    /// What f32 gives for the same values, up to the rounding of weights and outputs; with all that the processor has.
    #[test]
    fn equals_attention_in_f32() {
        for (lens, dim) in
            [([1, 1], 16), ([5, 5], 16), ([70, 70], 20), ([100, 300], 72), ([100, 301], 72), ([66, 131], 130)]
        {
            let [query_len, key_len] = lens;
            let all = [[2, 6, query_len, dim], [2, 2, key_len, dim], [2, 2, key_len, dim]];
            let [q, k, v] = all.map(|shape| cast_to(random(shape, 1) * 0.3, DType::BF16));
            let wide = [&q, &k, &v].map(|x| cast_to(x.clone(), DType::F32));
            for bias in [None, Some(causal_bias(key_len - query_len..key_len, key_len, &q.device()))] {
                let exact = {
                    let [q, k, v] = &wide;
                    attention(q, k, v, bias.as_ref()).expect("flex").swap_dims(1, 2).into_data()
                };
                let sizes = Sizes { batch: 2, heads: 6, kv_heads: 2, query_len, key_len, head_dim: dim };
                let opened = [&q, &k, &v].map(|x| Heads::of(x).expect("flex"));
                let bias = bias.as_ref().map(|bias| Bias::new(bias, query_len).expect("flex"));
                let heads = opened.each_ref();
                let mut found = Vec::new();
                found.extend(Tiles::detect().map(|tiles| attend_by(tiles, heads, bias.as_ref(), sizes)));
                #[cfg(target_arch = "x86_64")]
                found.extend(Pairs::detect().map(|pairs| attend_by(pairs, heads, bias.as_ref(), sizes)));
                for mine in found {
                    let mine = Tensor::<1>::from_floats(mine.expect("pairs").as_slice(), &q.device());
                    let mine = mine.reshape([2, query_len, 6, dim]).into_data();
                    mine.assert_approx_eq::<f32>(&exact, Tolerance::rel_abs(8e-3, 8e-3));
                }
            }
        }
    }

    #[test]
    fn is_what_attention_in_bf16_is_computed_by() {
        let q = cast_to(random([1, 2, 70, 16], 1), DType::BF16);
        let heads = [&q, &q, &q].map(|x| Heads::of(x).expect("flex"));
        let sizes = Sizes { batch: 1, heads: 2, kv_heads: 2, query_len: 70, key_len: 70, head_dim: 16 };
        let mine = attention(&q, &q, &q, None).expect("flex");
        assert_eq!(mine.dtype(), DType::BF16);
        if let Some(values) = attend(heads.each_ref(), None, sizes) {
            let mine = mine.swap_dims(1, 2).into_data().try_to_vec::<bf16>().expect("bf16");
            assert_eq!(mine, values);
        }
    }
}
