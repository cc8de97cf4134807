use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};

use super::super::half::Values;
use super::super::recorded::Derivative;
use super::super::tile::{self, Buffer, Floats, Rows, Turned};
use super::super::turn::Turner;
use super::super::{PARALLEL, each_chunk, reduce::dot, zeros};
use super::{Bias, Heads, Put, QUERIES, Sizes, in_panels, scale, softmax, stride, turn, with_turned};

/// Attention that will go back: its inputs. The weights are computed again, of a few queries at a time (Dao et al.,
/// FlashAttention, arXiv:2205.14135, section 3).
#[derive(Debug, Clone)]
pub(super) struct Back {
    query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    bias: Option<Bias>,
    sizes: Sizes,
}

impl Back {
    pub fn new([query, key, value]: [FlexTensor; 3], bias: Option<Bias>, sizes: Sizes) -> Self {
        Self { query, key, value, bias, sizes }
    }
}

/// What it gives lies in memory as `[batch, len, heads, head_dim]`, as the layer had it before its heads were split.
impl Derivative<3> for Back {
    fn gradients(self, gradient: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Self { query, key, value, bias, sizes } = self;
        let Sizes { batch, heads, kv_heads, query_len, key_len, head_dim } = sizes;
        let [query, key, value, gradient] = [query, key, value, gradient].map(Heads::new);
        let arch = pulp::Arch::new();
        let mut packed = zeros(batch * kv_heads * packed_len(sizes));
        each_chunk(&mut packed, packed_len(sizes), sizes.worth_it(), |(index, out)| {
            let place = [index / kv_heads, index % kv_heads];
            arch.dispatch(Pack { out, key: &key, value: &value, place, sizes });
        });

        // A task each head, with gradients of its own for keys and values, so that nobody waits and sums do not depend on who is first.
        let lengths = [query_len, key_len, key_len].map(|len| len * head_dim);
        let mut found = zeros(batch * heads * lengths.iter().sum::<usize>());
        let (packed, bias) = (&packed, bias.as_ref());
        each_chunk(&mut found, lengths.iter().sum(), sizes.worth_it(), |(index, out)| {
            let [sample, head] = [index / heads, index % heads];
            let packed = &packed[(sample * kv_heads + head * kv_heads / heads) * packed_len(sizes)..];
            let packed = &packed[..packed_len(sizes)];
            arch.dispatch(Head {
                out,
                query: &query,
                gradient: &gradient,
                packed,
                bias,
                sample,
                head,
                sizes,
            });
        });
        let [for_query, for_key, _] = lengths;
        [
            Some(merge(&found, 0..for_query, heads, sizes)),
            Some(merge(&found, for_query..for_query + for_key, kv_heads, sizes)),
            Some(merge(&found, for_query + for_key..for_query + 2 * for_key, kv_heads, sizes)),
        ]
    }
}

/// Numbers of a head's keys and values, both turned, and of its keys as rows, all in panels.
fn packed_len(sizes: Sizes) -> usize {
    2 * sizes.padded_keys() * sizes.head_dim + sizes.key_len * sizes.padded_dim()
}

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
        let Some((keys, values)) = Values::of(&key.tensor).zip(Values::of(&value.tensor)) else { return };
        let turned = sizes.padded_keys() * sizes.head_dim;
        let (turned_keys, rest) = out.split_at_mut(turned);
        let (turned_values, key_rows) = rest.split_at_mut(turned);
        let width = tile::width::<S>();
        let mut turner = Turner::new(width);
        turn(turned_keys, &mut turner, keys, sizes, |row| key.start([sample, head, row]));
        turn(turned_values, &mut turner, values, sizes, |row| value.start([sample, head, row]));
        in_panels(key_rows, width, sizes, |row, from, room| key.copy(keys, [sample, head, row], from, room));
    }
}

/// All queries of a head.
struct Head<'a> {
    /// Gradients of queries, of keys and of values, `[len, head_dim]` each; zeros at first.
    out: &'a mut [f32],
    query: &'a Heads,
    gradient: &'a Heads,
    packed: &'a [f32],
    bias: Option<&'a Bias>,
    sample: usize,
    head: usize,
    sizes: Sizes,
}

impl WithSimd for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, query, gradient, packed, bias, sample, head, sizes } = self;
        let Sizes { query_len, key_len, head_dim, .. } = sizes;
        let all = [&query.tensor, &gradient.tensor].map(Values::of);
        let [Some(query_values), Some(gradient_values)] = all else { return };
        let (for_query, rest) = out.split_at_mut(query_len * head_dim);
        let (for_key, for_value) = rest.split_at_mut(key_len * head_dim);
        let turned = sizes.padded_keys() * head_dim;
        let (keys, rest) = packed.split_at(turned);
        let (values, key_rows) = rest.split_at(turned);

        let (width, dim, scale) = (tile::width::<S>(), sizes.padded_dim(), scale(head_dim));
        let most = QUERIES.min(query_len);
        let [mut weights, mut changes] = [0; 2].map(|_| Buffer::new(most * stride::<S>(key_len)));
        let [mut queries, mut gradients] = [0; 2].map(|_| vec![0.0; most * head_dim]);
        let mut panel = Buffer::new(most * dim);
        for (block, for_query) in for_query.chunks_mut(QUERIES * head_dim).enumerate() {
            let (first, rows) = (block * QUERIES, for_query.len() / head_dim);
            let last = bias.map_or(key_len, |bias| bias.last_seen(sample, first..first + rows));
            let stride = stride::<S>(last);
            let queries = &mut queries[..rows * head_dim];
            let gradients = &mut gradients[..rows * head_dim];
            let outputs = queries.chunks_exact_mut(head_dim).zip(gradients.chunks_exact_mut(head_dim));
            for (row, (query_row, gradient_row)) in outputs.enumerate() {
                let place = [sample, head, first + row];
                query.copy(query_values, place, 0, query_row);
                query_row.iter_mut().for_each(|value| *value *= scale);
                gradient.copy(gradient_values, place, 0, gradient_row);
            }

            let weights = &mut weights.values()[..rows * stride];
            with_turned(simd, (&*queries, Floats), keys, [head_dim, last], weights);
            softmax(simd, (&mut *weights, stride), last, |row| {
                bias.map(|bias| bias.row(sample, first + row))
            });
            // Gradients of the weights, and from them those of the scores.
            let changes = &mut changes.values()[..rows * stride];
            with_turned(simd, (&*gradients, Floats), values, [head_dim, last], changes);
            for (weights, changes) in weights.chunks_exact(stride).zip(changes.chunks_exact_mut(stride)) {
                let (weights, changes) = (&weights[..last], &mut changes[..last]);
                let mean = dot(simd, weights, changes);
                for (change, weight) in changes.iter_mut().zip(weights) {
                    *change = weight * (*change - mean);
                }
            }

            let mut put = Put { out: for_query, start: 0, stride: head_dim, columns: head_dim, adds: false };
            let scores = Rows { values: changes, start: 0, stride, products: Floats };
            tile::multiply(simd, scores, [rows, last, dim], (key_rows, key_len), &mut put);
            for_query.iter_mut().for_each(|value| *value *= scale);

            let panel = &mut panel.values()[..rows * dim];
            let pairs = [(&*changes, &*queries, &mut *for_key), (&*weights, &*gradients, &mut *for_value)];
            for (scores, of_rows, out) in pairs {
                in_panels(panel, width, sizes, |row, from, room| {
                    room.copy_from_slice(&of_rows[row * head_dim + from..][..room.len()]);
                });
                let mut put = Put { out, start: 0, stride: head_dim, columns: head_dim, adds: true };
                let scores = Turned { values: scores, stride };
                tile::multiply(simd, scores, [last, rows, dim], (panel, rows), &mut put);
            }
        }
    }
}

/// The gradients that stand at `part` of what the heads have found, those of the heads that share one added up in their order.
fn merge(found: &[f32], part: std::ops::Range<usize>, heads: usize, sizes: Sizes) -> FlexTensor {
    /// Tokens of a task.
    const TOKENS: usize = 16;
    let (dim, group) = (sizes.head_dim, sizes.heads / heads);
    let len = part.len() / dim;
    let each = found.len() / (sizes.batch * sizes.heads);
    let mut values = zeros(sizes.batch * len * heads * dim);
    let worth_it = values.len() > PARALLEL;
    each_chunk(&mut values, TOKENS * heads * dim, worth_it, |(index, out)| {
        for (token, out) in out.chunks_exact_mut(heads * dim).enumerate() {
            let token = index * TOKENS + token;
            let (sample, row) = (token / len, token % len);
            for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                let first = sample * sizes.heads + head * group;
                let start = part.start + row * dim;
                out.copy_from_slice(&found[first * each + start..][..dim]);
                for other in first + 1..first + group {
                    let more = &found[other * each + start..][..dim];
                    out.iter_mut().zip(more).for_each(|(sum, value)| *sum += value);
                }
            }
        }
    });
    let values = super::super::tensor(values, [sizes.batch, len, heads, dim]);
    let layout = values.layout().transpose(1, 2);
    values.with_layout(layout)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::super::super::tests::{gradients_agree, random};
    use super::super::attention;
    use super::super::tests::written_out;
    use crate::nn::{causal_bias, key_padding_bias};

    #[test]
    fn gradients_are_those_of_the_written_out_form() {
        for [heads, kv_heads, query_len, key_len, dim] in
            [[2, 1, 1, 1, 4], [6, 2, 7, 7, 16], [2, 2, 100, 130, 72], [3, 1, 61, 150, 64], [2, 2, 5, 9, 130]]
        {
            let inputs = [(heads, query_len, 1), (kv_heads, key_len, 2), (kv_heads, key_len, 3)]
                .map(|(heads, len, seed)| random([2, len, heads, dim], seed) * 0.3);
            let device = inputs[0].device();
            let causal = causal_bias(key_len - query_len..key_len, key_len, &device);
            let mask = [vec![true; key_len], (0..key_len).map(|key| key == 0 || key + 2 < key_len).collect()];
            let padded = key_padding_bias(&mask, &device);
            for bias in [None, Some(causal.clone()), Some(padded.clone()), Some(causal + padded)] {
                // On the device of what is attended.
                let bias = |like: &Tensor<4>| {
                    bias.as_ref().map(|bias| Tensor::from_data(bias.to_data(), &like.device()))
                };
                let heads = |inputs: [Tensor<4>; 3]| inputs.map(|input| input.swap_dims(1, 2));
                gradients_agree(
                    inputs.clone(),
                    |inputs| {
                        let [q, k, v] = heads(inputs);
                        attention(&q, &k, &v, bias(&q).as_ref()).expect("flex in f32")
                    },
                    |inputs| {
                        let [q, k, v] = heads(inputs);
                        written_out(&q, &k, &v, bias(&q).as_ref())
                    },
                );
            }
        }
    }

    /// Sums are in an order that does not follow the threads.
    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let inputs = [(6, 1), (2, 2), (2, 3)].map(|(heads, seed)| random([2, heads, 130, 32], seed) * 0.3);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| {
                let [q, k, v] = inputs.clone().map(|input| Tensor::from_inner(input).require_grad());
                let bias = causal_bias(0..130, 130, &q.device());
                let y = attention(&q, &k, &v, Some(&bias)).expect("flex in f32");
                let grads = (y.clone() * y).sum().backward();
                [q, k, v].map(|input| input.grad(&grads).expect("wanted").into_data())
            })
        };
        assert_eq!(run(1), run(3));
    }
}
