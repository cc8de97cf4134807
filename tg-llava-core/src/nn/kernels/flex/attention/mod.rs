mod backward;
mod halves;
mod newest;
mod stretch;

pub(in crate::nn) use newest::attend_newest;

use std::ops::Range;

use burn::backend::Flex;
use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::half::Values;
use super::recorded::{self, Input};
use super::softmax::{seen_keys, softmax_row};
use super::tile::{self, Buffer, Floats, Products, Rows, Sink};
use super::turn::Turner;
use super::{PARALLEL, Wrapper, each_chunk, in_rows, rows_of, zeros};

/// Queries of one task: enough that keys and values are not what they wait for, few enough that their scores stay in a cache.
const QUERIES: usize = 8 * tile::ROWS;

/// `softmax(Q Kᵗ / sqrt(head_dim) + bias) V` in f32, scores of a few queries at a time, which are never in memory together. Keys
/// that no query of a task sees at its end, as with a causal bias, are not computed. A query's output does not depend on the
/// other ones. Recorded where a gradient is wanted of what is attended; the bias has none.
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
    let sizes = Sizes { batch, heads, kv_heads, query_len, key_len, head_dim };
    let bias = match bias {
        Some(bias) => Some(Bias::new(bias, query_len)?),
        None => None,
    };
    if let Some(inputs) = recorded::inputs([Input::of(query), Input::of(key), Input::of(value)]) {
        let opened = inputs.each_ref().map(Input::values);
        let output = attend(opened.clone().map(Heads::new), bias.as_ref(), sizes);
        let output: Tensor<4> = Tensor::from_primitive::<Flex>(output);
        let back = backward::Back::new(opened, bias, sizes);
        return recorded::record(inputs, back, output.swap_dims(1, 2));
    }
    let wrapper = Wrapper::of(query)?;
    let opened = [Heads::of(query)?, Heads::of(key)?, Heads::of(value)?];
    if wrapper.dtype == DType::BF16
        && let Some(values) = halves::attend(opened.each_ref(), bias.as_ref(), sizes)
    {
        let merged = FlexTensor::from_data(TensorData::new(values, [batch, query_len, heads, head_dim]));
        return Some(wrapper.rewrap::<4>(merged).swap_dims(1, 2));
    }
    let merged: Tensor<4> = wrapper.wrap(attend(opened, bias.as_ref(), sizes));
    Some(merged.swap_dims(1, 2))
}

/// The values of the attention, `[batch, query_len, num_heads, head_dim]`.
fn attend([query, key, value]: [Heads; 3], bias: Option<&Bias>, sizes: Sizes) -> FlexTensor {
    let Sizes { batch, heads, kv_heads, query_len, head_dim, .. } = sizes;
    let arch = pulp::Arch::new();
    let mut packed = zeros(batch * kv_heads * sizes.packed());
    each_chunk(&mut packed, sizes.packed(), sizes.worth_it(), |(index, out)| {
        let place = [index / kv_heads, index % kv_heads];
        arch.dispatch(Pack { out, key: &key, value: &value, place, sizes });
    });

    let mut values = zeros(batch * query_len * heads * head_dim);
    let tasks: Vec<Queries<'_>> = values
        .chunks_mut(query_len * heads * head_dim)
        .zip(packed.chunks(kv_heads * sizes.packed()))
        .enumerate()
        .flat_map(|(sample, (out, packed))| {
            let query = &query;
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
    match sizes.worth_it() {
        true => tasks.into_par_iter().for_each(|task| arch.dispatch(task)),
        false => tasks.into_iter().for_each(|task| arch.dispatch(task)),
    }
    super::tensor(values, [batch, query_len, heads, head_dim])
}

/// What products of queries and keys are multiplied with.
fn scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    query_len: usize,
    key_len: usize,
    head_dim: usize,
}

impl Sizes {
    /// Whether there is work for all threads.
    fn worth_it(self) -> bool {
        self.batch * self.heads * self.query_len * self.key_len > PARALLEL
    }

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
        Some(Self::new(Wrapper::of(tensor)?.strip(tensor.clone())?))
    }

    fn new(mut tensor: FlexTensor) -> Self {
        let strides = tensor.layout().strides();
        if strides[3] != 1 || strides.iter().any(|&stride| stride < 0) {
            tensor = in_rows(tensor);
        }
        let strides = tensor.layout().strides();
        let strides = [0, 1, 2].map(|axis| strides[axis] as usize);
        Self { tensor, strides }
    }

    /// Fills `out` with rows from `place` on, of `len` values each, out of the tensor's buffer.
    pub fn rows<T: Copy>(&self, values: &[T], [sample, head, first]: [usize; 3], len: usize, out: &mut [T]) {
        for (row, out) in (first..).zip(out.chunks_exact_mut(len)) {
            out.copy_from_slice(&values[self.start([sample, head, row])..][..len]);
        }
    }

    /// Where a row begins in the tensor's buffer.
    #[inline(always)]
    fn start(&self, [sample, head, row]: [usize; 3]) -> usize {
        let [per_sample, per_head, per_row] = self.strides;
        self.tensor.layout().start_offset() + sample * per_sample + head * per_head + row * per_row
    }

    /// Fills `room` with values of a row from `from` on.
    #[inline(always)]
    fn copy(&self, values: Values<'_>, place: [usize; 3], from: usize, room: &mut [f32]) {
        values.copy(self.start(place) + from, room);
    }
}

/// Biases by row, and how many keys each row sees.
#[derive(Debug, Clone)]
struct Bias {
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

    /// The keys that some of `queries` sees, up to the last one.
    fn last_seen(&self, sample: usize, queries: Range<usize>) -> usize {
        queries.map(|query| self.row(sample, query).1).max().unwrap_or(0)
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
        turn(keys, &mut turner, key_values, sizes, |row| key.start([sample, head, row]));
        in_panels(values, width, sizes, |row, from, room| {
            value.copy(value_values, [sample, head, row], from, room);
        });
    }
}

/// Fills panels with rows, turned, each of them from its `start` on.
#[inline(always)]
fn turn(
    panels: &mut [f32],
    turner: &mut Turner,
    values: Values<'_>,
    sizes: Sizes,
    start: impl Fn(usize) -> usize,
) {
    let width = turner.width();
    for (index, panel) in panels.chunks_exact_mut(width * sizes.head_dim).enumerate() {
        let first = index * width;
        let used = width.min(sizes.key_len.saturating_sub(first));
        turner.turn(panel, [used, sizes.head_dim], values, |row| start(first + row));
    }
}

/// Fills panels with rows as they are, of which there are as many as fit.
#[inline(always)]
fn in_panels(panels: &mut [f32], width: usize, sizes: Sizes, read: impl Fn(usize, usize, &mut [f32])) {
    let rows = panels.len() / sizes.padded_dim();
    for column in (0..sizes.padded_dim()).step_by(width) {
        let columns = width.min(sizes.padded_dim() - column);
        let filled = columns.min(sizes.head_dim.saturating_sub(column));
        let panel = &mut panels[rows * column..][..rows * columns];
        for (row, out) in panel.chunks_exact_mut(columns).enumerate() {
            read(row, column, &mut out[..filled]);
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
        let last = bias.map_or(key_len, |bias| bias.last_seen(sample, first..first + queries));
        let stride = stride::<S>(last);
        let mut scaled = vec![0.0; queries * head_dim];
        let mut weights = Buffer::new(queries * stride);
        let weights = weights.values();
        for head in 0..heads {
            for (row, scaled) in scaled.chunks_exact_mut(head_dim).enumerate() {
                query.copy(query_values, [sample, head, first + row], 0, scaled);
                scaled.iter_mut().for_each(|value| *value *= scale(head_dim));
            }
            let packed = &packed[head * kv_heads / heads * sizes.packed()..][..sizes.packed()];
            let (keys, values) = packed.split_at(sizes.padded_keys() * head_dim);
            with_turned(simd, (&scaled, Floats), keys, [head_dim, last], weights);
            softmax(simd, (&mut *weights, stride), last, |row| {
                bias.map(|bias| bias.row(sample, first + row))
            });
            let start = head * head_dim;
            let mut put = Put { out, start, stride: heads * head_dim, columns: head_dim, adds: false };
            let rows = Rows { values: weights, start: 0, stride, products: Floats };
            let dim = sizes.padded_dim();
            tile::multiply(simd, rows, [queries, last, dim], (values, key_len), &mut put);
        }
    }
}

/// Between rows of scores of `last` keys: no power of two, or all rows would compete for the same places in the cache.
#[inline(always)]
fn stride<S: Simd>(last: usize) -> usize {
    last.next_multiple_of(tile::width::<S>()) + 16
}

/// Products of rows, `[rows, depth]`, with the first `last` turned ones, in rows of [`stride`].
#[inline(always)]
fn with_turned<S: Simd, P: Products<S>>(
    simd: S,
    (rows, products): (&[f32], P),
    turned: &[f32],
    [depth, last]: [usize; 2],
    out: &mut [f32],
) {
    let (width, stride) = (tile::width::<S>(), stride::<S>(last));
    let count = rows.len() / depth;
    let rows = Rows { values: rows, start: 0, stride: depth, products };
    for (panel, turned) in turned.chunks_exact(width * depth).take(last.div_ceil(width)).enumerate() {
        let mut put = Put { out, start: panel * width, stride, columns: width, adds: false };
        tile::multiply(simd, rows, [count, depth, width], (turned, depth), &mut put);
    }
}

/// Scores of the first `last` keys to weights, in place, in rows of `stride`; `bias` gives that of a row, and how many keys the row sees.
#[inline(always)]
fn softmax<'b, S: Simd>(
    simd: S,
    (rows, stride): (&mut [f32], usize),
    last: usize,
    bias: impl Fn(usize) -> Option<(&'b [f32], usize)>,
) {
    for (row, scores) in rows.chunks_exact_mut(stride).enumerate() {
        let bias = bias(row);
        let (seen, hidden) = scores[..last].split_at_mut(bias.map_or(last, |(_, seen)| seen));
        softmax_row(simd, seen, bias.map(|(bias, _)| bias));
        hidden.fill(0.0);
    }
}

/// Writes rows from `start` on, `stride` apart, of so many columns, or adds them to what is there.
struct Put<'a> {
    out: &'a mut [f32],
    start: usize,
    stride: usize,
    columns: usize,
    adds: bool,
}

impl<S: Simd> Sink<S> for Put<'_> {
    #[inline(always)]
    fn take(&mut self, simd: S, row: usize, column: usize, sums: &[S::f32s]) {
        for (v, &sum) in sums.iter().enumerate() {
            let column = column + v * S::F32_LANES;
            if column < self.columns {
                let start = self.start + row * self.stride + column;
                let len = S::F32_LANES.min(self.columns - column);
                let out = &mut self.out[start..start + len];
                // What loads and stores a part of a register are no single instructions.
                match S::as_mut_simd_f32s(out).0.first_mut() {
                    Some(out) => *out = if self.adds { simd.add_f32s(*out, sum) } else { sum },
                    None => {
                        let sum =
                            if self.adds { simd.add_f32s(simd.partial_load_f32s(out), sum) } else { sum };
                        simd.partial_store_f32s(out, sum);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use burn::tensor::activation;

    use super::super::tests::{close, random};
    use super::*;
    use crate::nn::{cast_to, causal_bias, key_padding_bias};

    /// As [`crate::nn::attention`] writes it out.
    pub(super) fn written_out(
        q: &Tensor<4>,
        k: &Tensor<4>,
        v: &Tensor<4>,
        bias: Option<&Tensor<4>>,
    ) -> Tensor<4> {
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
        let dtype = DType::F16;
        let [q, k, v] = [&q, &k, &v].map(|x| cast_to(x.clone(), dtype));
        let [wide_q, wide_k, wide_v] = [&q, &k, &v].map(|x| cast_to(x.clone(), DType::F32));
        let mine = attention(&q, &k, &v, None).expect("flex");
        assert_eq!(mine.dtype(), dtype);
        let wide = attention(&wide_q, &wide_k, &wide_v, None).expect("flex");
        assert_eq!(mine.to_data(), cast_to(wide, dtype).to_data());
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
