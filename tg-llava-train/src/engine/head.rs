//! Final norm, output head and cross-entropy in chunks, forwards and backwards at once.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use tg_llava_core::model::TgLlava;
use tg_llava_core::nn::{LossTargets, cross_entropy_sum, rms_norm};

use super::tape::GradientSink;

/// The loss of a batch and where it points.
pub struct HeadLoss {
    /// Mean cross-entropy over the targets, `[1]` in f32, without graph and unscaled.
    pub loss: Tensor<1>,
    /// Gradient of the scaled loss with regard to the hidden states, without graph.
    pub gradient: Tensor<3>,
}

/// Mean cross-entropy of the targets, its gradient on `hidden_states`, and in `sink` on norm and head.
///
/// Only `chunk` rows of logits are alive at a time, so a vocabulary of 152k costs no more than those.
/// All gradients are multiplied by `scale` (for f16).
///
/// # Shapes
/// - hidden_states: `[batch, len, hidden]` before the final norm, without graph
pub fn head_loss(
    model: &TgLlava,
    hidden_states: Tensor<3>,
    targets: &LossTargets,
    chunk: usize,
    scale: f64,
    sink: &mut impl GradientSink,
) -> HeadLoss {
    let [batch, len, width] = hidden_states.dims();
    let device = hidden_states.device();
    let rows = hidden_states.reshape([batch * len, width]);
    let mut gradient = rows.zeros_like();
    let mut sum: Option<Tensor<1>> = None;
    let count = targets.tokens.len() as f64;
    let chunks = targets.positions.chunks(chunk.max(1)).zip(targets.tokens.chunks(chunk.max(1)));
    for (positions, tokens) in chunks {
        let places: Vec<i64> = positions.iter().map(|&p| p as i64).collect();
        let size = places.len();
        let places: Tensor<1, Int> = Tensor::from_data(TensorData::new(places, [size]), &device);
        let hidden = Tensor::from_inner(rows.clone().select(0, places.clone())).require_grad();
        let logits = model.llm.logits(rms_norm(&model.llm.norm, hidden.clone()));
        let loss = cross_entropy_sum(logits, tokens);
        let value = loss.clone().inner();
        sum = Some(sum.map_or(value.clone(), |sum| sum + value));
        let found = (loss * (scale / count)).backward();
        sink.add(model, &found);
        if let Some(part) = hidden.grad(&found) {
            gradient = gradient.select_assign(0, places, part, IndexingUpdateOp::Add);
        }
    }
    let loss = sum.map_or_else(|| Tensor::zeros([1], &device), |sum| sum / count);
    HeadLoss { loss, gradient: gradient.reshape([batch, len, width]) }
}
