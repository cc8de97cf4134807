use std::ops::ControlFlow;

use burn::nn::Dropout;
use burn::tensor::{DType, Tensor, activation::softmax, assert_shape};

use super::cast_to;

/// Scaled dot-product attention, `softmax(Q Kᵗ / sqrt(head_dim) + bias) V`, with the softmax in f32.
///
/// Grouped queries are served without copying keys and values: the `num_heads / num_kv_heads` query
/// heads that share a key head are folded into the query axis.
///
/// # Shapes
/// - query: `[batch, num_heads, query_len, head_dim]`
/// - key, value: `[batch, num_kv_heads, key_len, head_dim]`
/// - bias: `[batch or 1, 1, query_len or 1, key_len]`, added to the scores (see [`super::key_padding_bias`])
/// - output: `[batch, num_heads, query_len, head_dim]`
///
/// # Panics
/// Where `num_heads` is no multiple of `num_kv_heads` or shapes differ from these: a programmer's error (configs are
/// checked).
pub fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    bias: Option<&Tensor<4>>,
    dropout: Option<&Dropout>,
) -> Tensor<4> {
    let [batch, num_heads, query_len, head_dim] = query.dims();
    let [_, num_kv_heads, key_len, _] = key.dims();
    assert_shape!(value, [batch, num_kv_heads, key_len, head_dim]);
    assert_shape!(key, [batch, _, _, head_dim]);
    assert_eq!(num_heads % num_kv_heads, 0, "query heads must be a multiple of key heads");
    if dropout.is_none()
        && let Some(attended) = super::kernels::attention(&query, &key, &value, bias)
    {
        return attended;
    }
    let weights = attention_weights(query, key, bias);
    let weights = match dropout {
        Some(dropout) => dropout.forward(weights),
        None => weights,
    };
    weights
        .reshape([batch, num_kv_heads, num_heads / num_kv_heads * query_len, key_len])
        .matmul(value)
        .reshape([batch, num_heads, query_len, head_dim])
}

/// What [`attention`] multiplies the values with: how much each query looks at each key. Rows add up to 1.
///
/// # Shapes
/// - query, key, bias: as [`attention`] has them
/// - output: `[batch, num_heads, query_len, key_len]`, in the dtype of `query`
///
/// # Panics
/// As [`attention`].
pub fn attention_weights(query: Tensor<4>, key: Tensor<4>, bias: Option<&Tensor<4>>) -> Tensor<4> {
    let [batch, num_heads, query_len, head_dim] = query.dims();
    let [_, num_kv_heads, key_len, _] = key.dims();
    assert_shape!(key, [batch, _, _, head_dim]);
    assert_eq!(num_heads % num_kv_heads, 0, "query heads must be a multiple of key heads");
    let folded = num_heads / num_kv_heads * query_len;
    let dtype = query.dtype();
    // Scaled before the product, where half-precision scores could overflow.
    let query = query * (1.0 / (head_dim as f64).sqrt());
    let query = query.reshape([batch, num_kv_heads, folded, head_dim]);
    let scores = query.matmul(key.swap_dims(2, 3)).reshape([batch, num_heads, query_len, key_len]);
    cast_to(biased_softmax(cast_to(scores, DType::F32), bias), dtype)
}

/// `softmax(scores + bias)` over the keys.
fn biased_softmax(scores: Tensor<4>, bias: Option<&Tensor<4>>) -> Tensor<4> {
    let scores = match super::kernels::softmax(scores, bias) {
        ControlFlow::Break(weights) => return weights,
        ControlFlow::Continue(scores) => scores,
    };
    match bias {
        Some(bias) => softmax(scores + bias.clone(), 3),
        None => softmax(scores, 3),
    }
}

/// `[batch, len, num_heads * head_dim]` to `[batch, num_heads, len, head_dim]`.
pub fn split_heads(x: Tensor<3>, num_heads: usize) -> Tensor<4> {
    let [batch, len, width] = x.dims();
    x.reshape([batch, len, num_heads, width / num_heads]).swap_dims(1, 2)
}

/// `[batch, num_heads, len, head_dim]` to `[batch, len, num_heads * head_dim]`.
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, num_heads, len, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, len, num_heads * head_dim])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;
    use crate::nn::{causal_bias, key_padding_bias};

    fn random(shape: [usize; 4], device: &Device) -> Tensor<4> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
    }

    /// Grouped queries equal full attention over repeated key heads.
    #[test]
    fn grouped_queries_equal_repeated_keys() {
        let device = Device::flex();
        device.seed(1);
        let (q, k, v) =
            (random([2, 6, 5, 4], &device), random([2, 2, 5, 4], &device), random([2, 2, 5, 4], &device));
        let bias = causal_bias(0..5, 5, &device);
        let grouped = attention(q.clone(), k.clone(), v.clone(), Some(&bias), None);
        let repeat = |x: Tensor<4>| {
            let heads: Vec<_> = (0..6).map(|h| x.clone().narrow(1, h / 3, 1)).collect();
            Tensor::cat(heads, 1)
        };
        let full = attention(q, repeat(k), repeat(v), Some(&bias), None);
        grouped.into_data().assert_approx_eq::<f32>(&full.into_data(), Tolerance::absolute(1e-6));
    }

    /// A masked key changes nothing, whatever it holds.
    #[test]
    fn masked_keys_have_no_effect() {
        let device = Device::flex();
        device.seed(2);
        let (q, k, v) =
            (random([1, 2, 3, 4], &device), random([1, 2, 5, 4], &device), random([1, 2, 5, 4], &device));
        let bias = key_padding_bias(&[vec![true, true, true, true, false]], &device);
        let masked = attention(q.clone(), k.clone(), v.clone(), Some(&bias), None);
        let cut = attention(q, k.narrow(2, 0, 4), v.narrow(2, 0, 4), None, None);
        masked.into_data().assert_approx_eq::<f32>(&cut.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn the_weights_of_a_query_add_up_to_one_and_give_its_output() {
        let device = Device::flex();
        device.seed(3);
        let (q, k, v) =
            (random([2, 4, 3, 4], &device), random([2, 2, 5, 4], &device), random([2, 2, 5, 4], &device));
        let weights = attention_weights(q.clone(), k.clone(), None);
        assert_eq!(weights.dims(), [2, 4, 3, 5]);
        let sums = weights.clone().sum_dim(3).into_data().try_to_vec::<f32>().unwrap();
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{sums:?}");
        // Query head 3 reads key head 1.
        let head = weights.narrow(1, 3, 1).matmul(v.clone().narrow(1, 1, 1));
        let all = attention(q, k, v, None, None);
        all.narrow(1, 3, 1).into_data().assert_approx_eq::<f32>(&head.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn heads_split_and_merge_back() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([0., 1., 2., 3., 4., 5., 6., 7.], &device).reshape([1, 2, 4]);
        let heads = split_heads(x.clone(), 2);
        assert_eq!(heads.clone().into_data().try_to_vec::<f32>().unwrap(), [0., 1., 4., 5., 2., 3., 6., 7.]);
        merge_heads(heads).into_data().assert_eq(&x.into_data(), true);
    }
}
