use burn::tensor::Tensor;

use super::super::exp::exp;
#[cfg(target_arch = "x86_64")]
use super::super::half::OnV4;
use super::super::half::Values;
use super::super::{PARALLEL, Wrapper, each_chunk};
use super::stretch::{HEADER, Opened, STRETCH};
use super::{Heads, scale};

/// [`super::attention`] of texts' newest tokens, one of each, over all that is kept of the text. Queries that share a head of keys
/// read it together.
///
/// # Shapes
/// - query: `[texts, num_heads, 1, head_dim]`, output the same
/// - texts: keys and values, `[1, num_kv_heads, capacity, head_dim]`, and how many of them to see
pub(crate) fn attend_newest(query: &Tensor<4>, texts: &[(Tensor<4>, Tensor<4>, usize)]) -> Option<Tensor<4>> {
    let [_, heads, _, head_dim] = query.dims();
    let kv_heads = texts.first()?.0.dims()[1];
    let wrapper = Wrapper::of(query)?;
    let query = Heads::of(query)?;
    let query_values = Values::of(&query.tensor)?;
    let mut opened = Vec::with_capacity(texts.len());
    for (key, value, len) in texts {
        let (key, value) = (Heads::of(key)?, Heads::of(value)?);
        if *len == 0 || key.strides[2] != head_dim || value.strides[2] != head_dim {
            return None;
        }
        opened.push((key, value, *len));
    }
    let mut scaled = vec![0.0f32; texts.len() * heads * head_dim];
    for (index, scaled) in scaled.chunks_exact_mut(head_dim).enumerate() {
        query.copy(query_values, [index / heads, index % heads, 0], 0, scaled);
        scaled.iter_mut().for_each(|value| *value *= scale(head_dim));
    }

    let mut tasks = Vec::new();
    for (text, (key, value, len)) in opened.iter().enumerate() {
        for head in 0..kv_heads {
            let queries = &scaled[(text * kv_heads + head) * (heads / kv_heads) * head_dim..];
            for first in (0..*len).step_by(STRETCH) {
                tasks.push(Stretch {
                    queries: &queries[..heads / kv_heads * head_dim],
                    keys: Values::of(&key.tensor)?,
                    values: Values::of(&value.tensor)?,
                    starts: [key, value].map(|memory| memory.start([0, head, first])),
                    len: STRETCH.min(len - first),
                    head_dim,
                });
            }
        }
    }
    let size = heads / kv_heads * (HEADER + head_dim);
    let mut parts = vec![0.0f32; tasks.len() * size];
    let keys = opened.iter().map(|(.., len)| len).sum::<usize>();
    each_chunk(&mut parts, size, heads * keys * head_dim > PARALLEL, |(index, out)| tasks[index].run(out));

    let mut values = vec![0.0f32; texts.len() * heads * head_dim];
    let mut out = values.chunks_exact_mut(head_dim);
    let mut parts = parts.as_slice();
    for (.., len) in &opened {
        for _ in 0..kv_heads {
            let (of_head, rest) = parts.split_at(len.div_ceil(STRETCH) * size);
            for (query, out) in (0..heads / kv_heads).zip(&mut out) {
                merge(of_head.chunks_exact(size).map(|part| &part[query * (HEADER + head_dim)..]), out);
            }
            parts = rest;
        }
    }
    let merged: Tensor<4> = wrapper.wrap(super::super::tensor(values, [texts.len(), 1, heads, head_dim]));
    Some(merged.swap_dims(1, 2))
}

/// The attention of a query, of what its stretches give.
fn merge<'a>(parts: impl Iterator<Item = &'a [f32]> + Clone, out: &mut [f32]) {
    let largest = parts.clone().map(|part| part[0]).fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for part in parts {
        let factor = exp(part[0] - largest);
        total += factor * part[1];
        out.iter_mut().zip(&part[HEADER..]).for_each(|(out, sum)| *out += factor * sum);
    }
    out.iter_mut().for_each(|out| *out /= total);
}

/// Some keys of a head, and the queries that read them.
struct Stretch<'a> {
    /// `[queries, head_dim]`, scaled.
    queries: &'a [f32],
    keys: Values<'a>,
    values: Values<'a>,
    /// Where the first key and the first value lie.
    starts: [usize; 2],
    len: usize,
    head_dim: usize,
}

impl Stretch<'_> {
    /// For each query its largest score, the sum of its weights and the sums of values.
    fn run(&self, out: &mut [f32]) {
        let &Self { queries, keys, values, starts: [key, value], len, head_dim } = self;
        let [key, value] = [key, value].map(|start| start..start + len * head_dim);
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V4::try_new() {
            match (keys, values) {
                (Values::F16(keys), Values::F16(values)) => {
                    let opened = Opened { out, queries, keys: &keys[key], values: &values[value], head_dim };
                    return simd.vectorize(OnV4(simd, opened));
                }
                (Values::Bf16(keys), Values::Bf16(values)) => {
                    let opened = Opened { out, queries, keys: &keys[key], values: &values[value], head_dim };
                    return simd.vectorize(OnV4(simd, opened));
                }
                _ => {}
            }
        }
        let room = || vec![0.0; if matches!(keys, Values::F32(_)) { 0 } else { len * head_dim }];
        let (mut key_room, mut value_room) = (room(), room());
        let keys = keys.read(key.start, key.len(), &mut key_room);
        let values = values.read(value.start, value.len(), &mut value_room);
        pulp::Arch::new().dispatch(Opened { out, queries, keys, values, head_dim });
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
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for [heads, kv_heads, dim] in [[6, 2, 16], [14, 2, 20], [3, 3, 72], [4, 1, 130]] {
                let query = cast_to(random([3, heads, 1, dim], 1) * 0.3, dtype);
                let memory = |len, seed| cast_to(random([1, kv_heads, len, dim], seed), dtype);
                let texts = [(9, 5), (70, 70), (300, 290)];
                let texts = texts.map(|(room, len)| (memory(room, 2), memory(room, 3), len));
                let mine = attend_newest(&query, &texts).expect("flex");
                assert_eq!(mine.dtype(), dtype);
                for (text, (key, value, len)) in texts.iter().enumerate() {
                    let wide = |x: Tensor<4>| cast_to(x, DType::F32);
                    let of_text = query.clone().narrow(0, text, 1);
                    let alone = attend_newest(&of_text, &texts[text..=text]).expect("flex");
                    let mine = mine.clone().narrow(0, text, 1);
                    assert_eq!(mine.to_data(), alone.to_data(), "as alone");
                    let [query, mine] = [of_text, mine].map(wide);
                    let [key, value] = [key, value].map(|x| wide(x.clone().narrow(2, 0, *len)));
                    let tolerance = match dtype {
                        DType::F32 if dim == 16 => 3e-6,
                        DType::F32 => 1e-5,
                        DType::F16 => 2e-3,
                        _ => 1e-2,
                    };
                    let expected = written_out(&query, &key, &value, None);
                    let tolerance = Tolerance::rel_abs(tolerance, tolerance);
                    mine.to_data().assert_approx_eq::<f32>(&expected.to_data(), tolerance);
                }
            }
        }
    }
}
