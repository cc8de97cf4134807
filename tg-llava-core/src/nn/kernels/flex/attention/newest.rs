use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::super::half::Values;
use super::super::softmax::softmax_row;
use super::super::{PARALLEL, Wrapper, each_chunk, reduce};
use super::{Heads, Sizes};

/// [`super::attention`] of texts' newest tokens, one of each, over all that is kept of the text.
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
        let sizes = Sizes { batch: texts.len(), heads, kv_heads, query_len: 1, key_len: *len, head_dim };
        opened.push((key, value, sizes));
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
    let merged: Tensor<4> = wrapper.wrap(super::super::tensor(values, [texts.len(), 1, heads, head_dim]));
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
const KEYS: usize = reduce::WEIGHTED;

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
        scaled.iter_mut().for_each(|value| *value *= sizes.scale());

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
            reduce::add_weighted(simd, out, weights, values);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Tolerance};

    use super::super::super::tests::random;
    use super::super::tests::written_out;
    use super::*;
    use crate::nn::cast_to;

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
}
