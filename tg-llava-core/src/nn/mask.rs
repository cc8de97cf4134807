use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Added to the score of a masked key: its softmax weight underflows to exactly zero, and a row whose
/// keys are all masked stays finite.
const MASKED: f32 = -1e30;

/// Bias that hides padding keys: 0 where `mask` is true, hugely negative elsewhere.
///
/// # Shapes
/// - mask: `batch` rows of equal length `key_len`, true = a real token
/// - output: `[batch, 1, 1, key_len]`, f32
pub fn key_padding_bias(mask: &[Vec<bool>], device: &Device) -> Tensor<4> {
    let (batch, key_len) = (mask.len(), mask.first().map_or(0, Vec::len));
    let values: Vec<f32> = mask.iter().flatten().map(|&real| if real { 0.0 } else { MASKED }).collect();
    Tensor::from_data(TensorData::new(values, [batch, 1, 1, key_len]), (device, burn::tensor::DType::F32))
}

/// Bias that hides keys which come after the query; `queries` are the places of the queries among the keys.
///
/// # Shapes
/// - output: `[1, 1, queries.len(), key_len]`, f32
pub fn causal_bias(queries: Range<usize>, key_len: usize, device: &Device) -> Tensor<4> {
    let query_len = queries.len();
    let queries: Tensor<2, Int> =
        Tensor::<1, Int>::arange(queries.start as i64..queries.end as i64, device).reshape([query_len, 1]);
    let keys: Tensor<2, Int> = Tensor::<1, Int>::arange(0..key_len as i64, device).reshape([1, key_len]);
    let future = keys.expand([query_len, key_len]).greater(queries.expand([query_len, key_len]));
    let zeros = Tensor::<2>::zeros([query_len, key_len], (device, burn::tensor::DType::F32));
    zeros.mask_fill(future, MASKED).reshape([1, 1, query_len, key_len])
}

/// The sum of two biases, where both are there.
pub fn combine_bias(a: Option<Tensor<4>>, b: Option<Tensor<4>>) -> Option<Tensor<4>> {
    match (a, b) {
        // A sum of two hidden marks stays finite and hidden.
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causal_hides_what_comes_later() {
        let device = Device::flex();
        let bias = causal_bias(1..3, 4, &device).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(bias, [0.0, 0.0, MASKED, MASKED, 0.0, 0.0, 0.0, MASKED]);
    }
}
