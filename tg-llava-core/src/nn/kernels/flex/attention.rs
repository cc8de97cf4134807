use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use tg_llava_x86::Tiles;

use super::half::Values;
use super::softmax::{seen_keys, softmax_row};
use super::tile::{self, Buffer, Rows, Sink, Turner};
use super::tiled_attention;
use super::{PARALLEL, Wrapper, each_chunk, in_rows, reduce, rows_of};

/// Queries of one task: enough that keys and values are not what they wait for, few enough that their scores stay in a cache.
const QUERIES: usize = 8 * tile::ROWS;

/// `softmax(Q Kᵗ / sqrt(head_dim) + bias) V` in f32, scores of a few queries at a time, which are never in memory together. Keys
/// that no query of a task sees at its end, as with a causal bias, are not computed. A query's output does not depend on the
/// other ones.
///
/// # Shapes
/// - query: `[batch, num_heads, query_len, head_dim]`, output the same
/// - key, value: `[batch, num_kv_heads, key_len, head_dim]`
/// - bias: `[batch or 1, 1, query_len or 1, key_len]`
pub(crate) fn attention(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    bias: Option<&Tensor<4>>,
) -> Option<Tensor<4>> {
    let [batch, heads, query_len, head_dim] = query.dims();
    let [_, kv_heads, key_len, _] = key.dims();
    if query.shape().num_elements() == 0 || key_len == 0 {
        return None;
    }
    let wrapper = Wrapper::of(query)?;
    let (query, key, value) = (Heads::of(query)?, Heads::of(key)?, Heads::of(value)?);
    let bias = match bias {
        Some(bias) => Some(Bias::new(bias, query_len)?),
        None => None,
    };
    let arch = pulp::Arch::new();
    let worth_it = batch * heads * query_len * key_len > PARALLEL;

    let sizes = Sizes { heads, kv_heads, key_len, head_dim };
    if let (DType::BF16, Some(tiles)) = (wrapper.dtype, Tiles::detect())
        && let Some(values) =
            tiled_attention::attend(tiles, [&query, &key, &value], bias.as_ref(), [batch, query_len], sizes)
    {
        let merged = FlexTensor::from_data(TensorData::new(values, [batch, query_len, heads, head_dim]));
        return Some(wrapper.rewrap::<4>(merged).swap_dims(1, 2));
    }
    let mut packed = vec![0.0f32; batch * kv_heads * sizes.packed()];
    each_chunk(&mut packed, sizes.packed(), worth_it, |(index, out)| {
        let place = [index / kv_heads, index % kv_heads];
        arch.dispatch(Pack { out, key: &key, value: &value, place, sizes });
    });

    let mut values = vec![0.0f32; batch * query_len * heads * head_dim];
    let tasks: Vec<Queries<'_>> = values
        .chunks_mut(query_len * heads * head_dim)
        .zip(packed.chunks(kv_heads * sizes.packed()))
        .enumerate()
        .flat_map(|(sample, (out, packed))| {
            let (query, bias) = (&query, bias.as_ref());
            out.chunks_mut(QUERIES * heads * head_dim).enumerate().map(move |(block, out)| Queries {
                out,
                query,
                packed,
                bias,
                sample,
                first: block * QUERIES,
                sizes,
            })
        })
        .collect();
    match worth_it {
        true => tasks.into_par_iter().for_each(|task| arch.dispatch(task)),
        false => tasks.into_iter().for_each(|task| arch.dispatch(task)),
    }
    let merged: Tensor<4> = wrapper.wrap(super::tensor(values, [batch, query_len, heads, head_dim]));
    Some(merged.swap_dims(1, 2))
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub heads: usize,
    pub kv_heads: usize,
    pub key_len: usize,
    pub head_dim: usize,
}

impl Sizes {
    /// Keys with those that fill up the last panel, on any processor.
    fn padded_keys(self) -> usize {
        self.key_len.next_multiple_of(64)
    }

    /// Values of a key with those that fill up the last register, on any processor.
    fn padded_dim(self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    /// Numbers of a head's keys and, behind them, of its values, both in panels.
    fn packed(self) -> usize {
        self.padded_keys() * self.head_dim + self.key_len * self.padded_dim()
    }
}

/// Heads of any layout whose rows lie in one piece.
pub(super) struct Heads {
    pub tensor: FlexTensor,
    strides: [usize; 3],
}

impl Heads {
    fn of(tensor: &Tensor<4>) -> Option<Self> {
        let mut tensor = Wrapper::of(tensor)?.strip(tensor.clone())?;
        let strides = tensor.layout().strides();
        if strides[3] != 1 || strides.iter().any(|&stride| stride < 0) {
            tensor = in_rows(tensor);
        }
        let strides = tensor.layout().strides();
        let strides = [0, 1, 2].map(|axis| strides[axis] as usize);
        Some(Self { tensor, strides })
    }

    /// Adds the values of a row of so many to `out`, from the tensor's buffer.
    pub fn push<T: Copy>(&self, values: &[T], [sample, head, row]: [usize; 3], len: usize, out: &mut Vec<T>) {
        let [per_sample, per_head, per_row] = self.strides;
        let start =
            self.tensor.layout().start_offset() + sample * per_sample + head * per_head + row * per_row;
        out.extend_from_slice(&values[start..start + len]);
    }

    /// Fills `room` with values of a row from `from` on.
    #[inline(always)]
    fn copy(&self, values: Values<'_>, [sample, head, row]: [usize; 3], from: usize, room: &mut [f32]) {
        let [per_sample, per_head, per_row] = self.strides;
        let start = self.tensor.layout().start_offset();
        values.copy(start + sample * per_sample + head * per_head + row * per_row + from, room);
    }
}

/// Biases by row, and how many keys each row sees.
pub(super) struct Bias {
    tensor: FlexTensor,
    seen: Vec<usize>,
    samples: usize,
    queries: usize,
    key_len: usize,
}

impl Bias {
    fn new(bias: &Tensor<4>, query_len: usize) -> Option<Self> {
        let [samples, _, queries, key_len] = bias.dims();
        debug_assert!(queries == 1 || queries == query_len);
        let tensor = rows_of(bias)?;
        let seen = tensor.storage::<f32>().chunks_exact(key_len).map(seen_keys).collect();
        Some(Self { tensor, seen, samples, queries, key_len })
    }

    /// The biases of a query's keys, as far as it sees any, and their number.
    pub fn row(&self, sample: usize, query: usize) -> (&[f32], usize) {
        let sample = if self.samples > 1 { sample } else { 0 };
        let row = sample * self.queries + if self.queries > 1 { query } else { 0 };
        let seen = self.seen[row];
        (&self.tensor.storage()[row * self.key_len..][..seen], seen)
    }
}

/// Puts keys, turned, and values of a head into panels.
struct Pack<'a> {
    out: &'a mut [f32],
    key: &'a Heads,
    value: &'a Heads,
    place: [usize; 2],
    sizes: Sizes,
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { out, key, value, place: [sample, head], sizes } = self;
        let (keys, values) = out.split_at_mut(sizes.padded_keys() * sizes.head_dim);
        let Some((key_values, value_values)) = Values::of(&key.tensor).zip(Values::of(&value.tensor)) else {
            return;
        };
        let width = tile::width::<S>();
        let mut turner = Turner::new(width);
        for (index, panel) in keys.chunks_exact_mut(width * sizes.head_dim).enumerate() {
            let first = index * width;
            let used = width.min(sizes.key_len.saturating_sub(first));
            turner.turn(panel, [used, sizes.head_dim], |row, from, block| {
                key.copy(key_values, [sample, head, first + row], from, block);
            });
        }
        for column in (0..sizes.padded_dim()).step_by(width) {
            let columns = width.min(sizes.padded_dim() - column);
            let filled = columns.min(sizes.head_dim.saturating_sub(column));
            let panel = &mut values[sizes.key_len * column..][..sizes.key_len * columns];
            for (row, out) in panel.chunks_exact_mut(columns).enumerate() {
                value.copy(value_values, [sample, head, row], column, &mut out[..filled]);
            }
        }
    }
}

/// All heads of a few queries of a sample.
struct Queries<'a> {
    /// `[queries, heads, head_dim]`
    out: &'a mut [f32],
    query: &'a Heads,
    packed: &'a [f32],
    bias: Option<&'a Bias>,
    sample: usize,
    first: usize,
    sizes: Sizes,
}

impl WithSimd for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, query, packed, bias, sample, first, sizes } = self;
        let Sizes { heads, kv_heads, key_len, head_dim, .. } = sizes;
        let Some(query_values) = Values::of(&query.tensor) else { return };
        let queries = out.len() / (heads * head_dim);
        let mut last = if bias.is_some() { 0 } else { key_len };
        for row in 0..queries {
            last = last.max(bias.map_or(0, |bias| bias.row(sample, first + row).1));
        }
        let width = tile::width::<S>();
        let stride = last.next_multiple_of(width) + 16;
        let mut scaled = vec![0.0; queries * head_dim];
        let mut scores = Buffer::new(queries * stride);
        let scores = scores.values();
        let scale = (1.0 / (head_dim as f64).sqrt()) as f32;
        for head in 0..heads {
            for (row, scaled) in scaled.chunks_exact_mut(head_dim).enumerate() {
                query.copy(query_values, [sample, head, first + row], 0, scaled);
                scaled.iter_mut().for_each(|value| *value *= scale);
            }
            let packed = &packed[head * kv_heads / heads * sizes.packed()..][..sizes.packed()];
            let (keys, values) = packed.split_at(sizes.padded_keys() * head_dim);
            let rows = Rows { values: &scaled, start: 0, stride: head_dim };
            for (panel, keys) in keys.chunks_exact(width * head_dim).take(last.div_ceil(width)).enumerate() {
                let mut put = Put { out: scores, start: panel * width, stride, columns: width };
                tile::multiply(simd, rows, [queries, head_dim, width], (keys, head_dim), &mut put);
            }
            for (row, scores) in scores.chunks_exact_mut(stride).take(queries).enumerate() {
                let bias = bias.map(|bias| bias.row(sample, first + row));
                let (seen, hidden) = scores[..last].split_at_mut(bias.map_or(last, |(_, seen)| seen));
                softmax_row(simd, seen, bias.map(|(bias, _)| bias));
                hidden.fill(0.0);
            }
            let mut put = Put { out, start: head * head_dim, stride: heads * head_dim, columns: head_dim };
            let rows = Rows { values: scores, start: 0, stride };
            let dim = sizes.padded_dim();
            tile::multiply(simd, rows, [queries, last, dim], (values, key_len), &mut put);
        }
    }
}

/// Writes rows from `start` on, `stride` apart, of so many columns.
struct Put<'a> {
    out: &'a mut [f32],
    start: usize,
    stride: usize,
    columns: usize,
}

impl<S: Simd> Sink<S> for Put<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, row: usize, column: usize, sums: &[S::f32s]) {
        for (v, &sum) in sums.iter().enumerate() {
            let column = column + v * S::F32_LANES;
            if column < self.columns {
                let start = self.start + row * self.stride + column;
                let len = S::F32_LANES.min(self.columns - column);
                simd.partial_store_f32s(&mut self.out[start..start + len], sum);
            }
        }
    }
}

/// [`attention`] of texts' newest tokens, one of each, over all that is kept of the text.
///
/// # Shapes
/// - query: `[texts, num_heads, 1, head_dim]`, output the same
/// - texts: keys and values, `[1, num_kv_heads, capacity, head_dim]`, and how many of them to see
pub(crate) fn attend_newest(query: &Tensor<4>, texts: &[(Tensor<4>, Tensor<4>, usize)]) -> Option<Tensor<4>> {
    let [_, heads, _, head_dim] = query.dims();
    let wrapper = Wrapper::of(query)?;
    let query = Heads::of(query)?;
    let mut opened = Vec::with_capacity(texts.len());
    for (key, value, len) in texts {
        let kv_heads = key.dims()[1];
        let (key, value) = (Heads::of(key)?, Heads::of(value)?);
        if *len == 0 || key.strides[2] != head_dim || value.strides[2] != head_dim {
            return None;
        }
        opened.push((key, value, Sizes { heads, kv_heads, key_len: *len, head_dim }));
    }
    let mut values = vec![0.0f32; texts.len() * heads * head_dim];
    let arch = pulp::Arch::new();
    let worth_it =
        opened.iter().map(|(.., sizes)| heads * sizes.key_len * head_dim).sum::<usize>() > PARALLEL;
    each_chunk(&mut values, head_dim, worth_it, |(index, out)| {
        let (text, head) = (index / heads, index % heads);
        let (key, value, sizes) = &opened[text];
        arch.dispatch(Newest { out, query: &query, key, value, text, head, sizes: *sizes });
    });
    let merged: Tensor<4> = wrapper.wrap(super::tensor(values, [texts.len(), 1, heads, head_dim]));
    Some(merged.swap_dims(1, 2))
}

/// One head of a text's newest token.
struct Newest<'a> {
    out: &'a mut [f32],
    query: &'a Heads,
    key: &'a Heads,
    value: &'a Heads,
    text: usize,
    head: usize,
    sizes: Sizes,
}

/// Keys that are read at a time.
const KEYS: usize = 4;

impl WithSimd for Newest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, query, key, value, text, head, sizes } = self;
        let Sizes { heads, kv_heads, key_len, head_dim, .. } = sizes;
        let all = [&query.tensor, &key.tensor, &value.tensor].map(Values::of);
        let [Some(query_values), Some(key_values), Some(value_values)] = all else { return };
        let mut scaled = vec![0.0; head_dim];
        query.copy(query_values, [text, head, 0], 0, &mut scaled);
        let scale = (1.0 / (head_dim as f64).sqrt()) as f32;
        scaled.iter_mut().for_each(|value| *value *= scale);

        let head = head * kv_heads / heads;
        let start = key.tensor.layout().start_offset() + head * key.strides[1];
        let mut room = vec![0.0; KEYS * head_dim];
        let mut scores = vec![0.0; key_len];
        for (index, scores) in scores.chunks_mut(KEYS).enumerate() {
            let from = start + index * KEYS * head_dim;
            let keys = key_values.read(from, scores.len() * head_dim, &mut room);
            let mut rows = [&keys[..head_dim]; KEYS];
            for (row, key) in rows.iter_mut().zip(keys.chunks_exact(head_dim)) {
                *row = key;
            }
            let [sums] = reduce::dots(simd, [&scaled], rows);
            for (score, sum) in scores.iter_mut().zip(sums) {
                *score = sum;
            }
        }
        softmax_row(simd, &mut scores, None);

        let start = value.tensor.layout().start_offset() + head * value.strides[1];
        for (index, weights) in scores.chunks(KEYS).enumerate() {
            let from = start + index * KEYS * head_dim;
            let values = value_values.read(from, weights.len() * head_dim, &mut room);
            for (weight, values) in weights.iter().zip(values.chunks_exact(head_dim)) {
                reduce::add_scaled(simd, out, *weight, values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tolerance, activation};

    use super::super::tests::{close, random};
    use super::*;
    use crate::nn::{cast_to, causal_bias, key_padding_bias};

    /// As [`crate::nn::attention`] writes it out.
    fn written_out(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, bias: Option<&Tensor<4>>) -> Tensor<4> {
        let (heads, kv_heads) = (q.dims()[1], k.dims()[1]);
        let repeat = |x: &Tensor<4>| {
            Tensor::cat((0..heads).map(|head| x.clone().narrow(1, head * kv_heads / heads, 1)).collect(), 1)
        };
        let scores = (q.clone() / (q.dims()[3] as f64).sqrt()).matmul(repeat(k).swap_dims(2, 3));
        let scores = bias.map_or(scores.clone(), |bias| scores + bias.clone());
        activation::softmax(scores, 3).matmul(repeat(v))
    }

    #[test]
    fn equals_the_written_out_form() {
        for [heads, kv_heads, query_len, key_len, dim] in
            [[2, 1, 1, 1, 4], [6, 2, 7, 7, 16], [4, 4, 100, 130, 72], [3, 1, 61, 300, 64], [2, 2, 5, 9, 130]]
        {
            let [q, k, v] = [(heads, query_len, 1), (kv_heads, key_len, 2), (kv_heads, key_len, 3)]
                .map(|(heads, len, seed)| random([2, len, heads, dim], seed).swap_dims(1, 2) * 0.3);
            let causal = causal_bias(key_len - query_len..key_len, key_len, &q.device());
            let mask = [vec![true; key_len], (0..key_len).map(|key| key == 0 || key + 2 < key_len).collect()];
            let padded = key_padding_bias(&mask, &q.device());
            for bias in [None, Some(causal.clone()), Some(padded.clone()), Some(causal + padded)] {
                let mine = attention(&q, &k, &v, bias.as_ref()).expect("flex");
                close(&mine, &written_out(&q, &k, &v, bias.as_ref()));
            }
        }
    }

    #[test]
    fn f16_is_computed_in_f32() {
        let [q, k, v] = [1, 2, 3].map(|seed| random([1, 2, 70, 16], seed) * 0.3);
        for dtype in [DType::F16] {
            let [q, k, v] = [&q, &k, &v].map(|x| cast_to(x.clone(), dtype));
            let [wide_q, wide_k, wide_v] = [&q, &k, &v].map(|x| cast_to(x.clone(), DType::F32));
            let mine = attention(&q, &k, &v, None).expect("flex");
            assert_eq!(mine.dtype(), dtype);
            let wide = attention(&wide_q, &wide_k, &wide_v, None).expect("flex");
            assert_eq!(mine.to_data(), cast_to(wide, dtype).to_data());
        }
    }

    #[test]
    fn newest_tokens_attend_as_written_out() {
        for dtype in [DType::F32, DType::F16] {
            let query = cast_to(random([2, 6, 1, 16], 1) * 0.3, dtype);
            let memory = |len, seed| cast_to(random([1, 2, len, 16], seed), dtype);
            let texts = [(memory(9, 2), memory(9, 3), 5), (memory(70, 4), memory(70, 5), 70)];
            let mine = attend_newest(&query, &texts).expect("flex");
            assert_eq!(mine.dtype(), dtype);
            for (text, (key, value, len)) in texts.iter().enumerate() {
                let wide = |x: Tensor<4>| cast_to(x, DType::F32);
                let [query, mine] = [&query, &mine].map(|x| wide(x.clone().narrow(0, text, 1)));
                let [key, value] = [key, value].map(|x| wide(x.clone().narrow(2, 0, *len)));
                let tolerance = if dtype == DType::F32 { 3e-6 } else { 2e-3 };
                let tolerance = Tolerance::rel_abs(tolerance, tolerance);
                let expected = written_out(&query, &key, &value, None);
                mine.to_data().assert_approx_eq::<f32>(&expected.to_data(), tolerance);
            }
        }
    }

    /// Whatever stands beside it, and in whatever pieces a text comes.
    #[test]
    fn a_query_has_the_bits_that_it_has_alone() {
        let [q, k, v] = [1, 2, 3].map(|seed| random([1, 3, 90, 20], seed));
        let bias = causal_bias(0..90, 90, &q.device());
        let whole = attention(&q, &k, &v, Some(&bias)).expect("flex");
        for (start, len) in [(0, 2), (3, 1), (40, 50), (47, 13)] {
            let bias = bias.clone().narrow(2, start, len);
            let some = attention(&q.clone().narrow(2, start, len), &k, &v, Some(&bias)).expect("flex");
            assert_eq!(some.to_data(), whole.clone().narrow(2, start, len).to_data(), "{start}..{len}");
        }
    }
}
