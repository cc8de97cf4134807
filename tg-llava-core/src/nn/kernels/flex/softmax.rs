use std::ops::ControlFlow;

use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::{PARALLEL, Wrapper, each_chunk, exp::exp, in_rows, reduce, rows_of};

/// Rows that one task computes.
const ROWS: usize = 16;

/// A bias at or below this hides its key whatever the score.
const HIDDEN: f32 = -1e29;

/// `softmax(scores + bias)` over the keys, or the scores back to go on with. Keys that a row does not see at its end, as with a causal bias,
/// cost nothing.
///
/// # Shapes
/// - scores: `[batch, num_heads, query_len, key_len]`, output the same
/// - bias: `[batch or 1, 1, query_len or 1, key_len]`
pub(crate) fn softmax(scores: Tensor<4>, bias: Option<&Tensor<4>>) -> ControlFlow<Tensor<4>, Tensor<4>> {
    let [_, heads, query_len, key_len] = scores.dims();
    let opened_bias = bias.map(rows_of);
    let (Some(wrapper), false, false) =
        (Wrapper::of(&scores), matches!(opened_bias, Some(None)), scores.shape().num_elements() == 0)
    else {
        return ControlFlow::Continue(scores);
    };
    let bias = opened_bias.flatten().zip(bias.map(Tensor::dims)).map(|(opened, dims)| {
        let [samples, _, queries, _]: [usize; 4] = dims;
        (opened, samples > 1, queries)
    });
    let bias_row = |row: usize| {
        let (tensor, per_batch, queries) = bias.as_ref()?;
        let sample = if *per_batch { row / (heads * query_len) } else { 0 };
        let query = if *queries > 1 { row % query_len } else { 0 };
        let start = (sample * queries + query) * key_len;
        Some(&tensor.storage::<f32>()[start..start + key_len])
    };
    // The scores are nobody else's, so they are overwritten.
    let Some(mut opened) = wrapper.strip(scores.clone()).map(in_rows) else {
        return ControlFlow::Continue(scores);
    };
    drop(scores);
    let values: &mut [f32] = opened.storage_mut();
    let arch = pulp::Arch::new();
    let task = |(index, rows): (usize, &mut [f32])| {
        for (offset, row) in rows.chunks_exact_mut(key_len).enumerate() {
            let bias = bias_row(index * ROWS + offset);
            arch.dispatch(SoftmaxRow { row, bias });
        }
    };
    let worth_it = values.len() > PARALLEL;
    each_chunk(values, ROWS * key_len, worth_it, task);
    ControlFlow::Break(wrapper.wrap(opened))
}

struct SoftmaxRow<'a> {
    row: &'a mut [f32],
    bias: Option<&'a [f32]>,
}

impl WithSimd for SoftmaxRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        softmax_row(simd, self.row, self.bias);
    }
}

/// How many keys a row with this bias sees, up to the last one. A row that sees nothing is computed in full, as its definition
/// says: all keys alike.
pub(super) fn seen_keys(bias: &[f32]) -> usize {
    bias.iter().rposition(|&b| b > HIDDEN).map_or(bias.len(), |last| last + 1)
}

#[inline(always)]
pub(super) fn softmax_row<S: Simd>(simd: S, row: &mut [f32], bias: Option<&[f32]>) {
    let seen = match bias {
        Some(bias) => {
            let seen = seen_keys(bias);
            for (value, bias) in row[..seen].iter_mut().zip(bias) {
                *value += bias;
            }
            seen
        }
        None => row.len(),
    };
    let (row, hidden) = row.split_at_mut(seen);
    let max = reduce::max(simd, row);
    row.iter_mut().for_each(|value| *value = exp(*value - max));
    let share = 1.0 / reduce::sum(simd, row);
    row.iter_mut().for_each(|value| *value *= share);
    hidden.fill(0.0);
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation;

    use super::super::tests::{close, random};
    use super::*;
    use crate::nn::{causal_bias, key_padding_bias};

    #[test]
    fn equals_the_written_out_form() {
        for (query_len, key_len) in [(1, 1), (1, 40), (7, 7), (33, 50), (130, 300)] {
            let scores = random([2, 3, query_len, key_len], key_len as u64);
            let device = scores.device();
            let causal = causal_bias(key_len - query_len..key_len, key_len, &device);
            let mask = [vec![true; key_len], (0..key_len).map(|key| key == 0 || key + 2 < key_len).collect()];
            let padded = key_padding_bias(&mask, &device);
            for bias in [None, Some(causal.clone()), Some(padded.clone()), Some(causal + padded)] {
                let biased = bias.clone().map_or(scores.clone(), |bias| scores.clone() + bias);
                let fused = softmax(scores.clone(), bias.as_ref()).break_value().expect("flex in f32");
                close(&fused, &activation::softmax(biased, 3));
            }
        }
    }

    #[test]
    fn a_row_that_sees_nothing_stays_finite() {
        let scores = random([1, 1, 1, 4], 1);
        let bias = key_padding_bias(&[vec![false; 4]], &scores.device());
        let fused = softmax(scores, Some(&bias)).break_value().expect("flex in f32");
        assert_eq!(fused.into_data().try_to_vec::<f32>().expect("f32"), [0.25; 4]);
    }
}
