use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::log_softmax, assert_shape};

use super::cast_to;

/// Label of a position that takes no part in the loss.
pub const IGNORE_INDEX: i64 = -100;

/// Labels that give no loss.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// A label that the decoder cannot predict.
    #[error("row {row}: label {label} is outside the vocabulary of {vocab_size}")]
    LabelOutOfRange {
        /// Row of the batch.
        row: usize,
        /// The label.
        label: i64,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// Nothing to learn from: the mean over no label is not a number.
    #[error("none of the {rows} row(s) has a supervised label, so there is no loss; was the answer cut off?")]
    NoLabels {
        /// Rows of the batch.
        rows: usize,
    },
}

/// Which positions of a batch predict which token: labels shifted by one, ignored ones left out.
///
/// Only these positions need logits, so a 152k vocabulary costs memory for the answers alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LossTargets {
    /// Flat positions `row * len + column` whose next token is supervised.
    pub positions: Vec<usize>,
    /// The tokens that follow them.
    pub tokens: Vec<i64>,
}

impl LossTargets {
    /// Targets of `labels`: one row a sample, rows of equal length, [`IGNORE_INDEX`] = no loss.
    ///
    /// # Errors
    /// [`LossError::NoLabels`] where nothing is supervised (the mean over nothing would be NaN), and
    /// [`LossError::LabelOutOfRange`] for a label outside the vocabulary.
    pub fn new(labels: &[Vec<i64>], vocab_size: usize) -> Result<Self, LossError> {
        let (mut positions, mut tokens) = (Vec::new(), Vec::new());
        for (row, labels_row) in labels.iter().enumerate() {
            for (column, &label) in labels_row.iter().enumerate().skip(1) {
                if label == IGNORE_INDEX {
                    continue;
                }
                if !usize::try_from(label).is_ok_and(|id| id < vocab_size) {
                    return Err(LossError::LabelOutOfRange { row, label, vocab_size });
                }
                positions.push(row * labels_row.len() + column - 1);
                tokens.push(label);
            }
        }
        if tokens.is_empty() {
            return Err(LossError::NoLabels { rows: labels.len() });
        }
        Ok(Self { positions, tokens })
    }

    /// The supervised positions' rows of `hidden_states`.
    ///
    /// # Shapes
    /// - hidden_states: `[batch, len, hidden]`, output: `[num_targets, hidden]`
    pub fn select(&self, hidden_states: Tensor<3>) -> Tensor<2> {
        let [batch, len, hidden] = hidden_states.dims();
        let device = hidden_states.device();
        let indices: Vec<i64> = self.positions.iter().map(|&p| p as i64).collect();
        hidden_states.reshape([batch * len, hidden]).select(0, int_tensor(indices, &device))
    }
}

/// Mean cross-entropy of `logits` against `targets`, in f32.
///
/// # Shapes
/// - logits: `[num_targets, vocab_size]`
/// - output: `[1]`, f32
pub fn cross_entropy(logits: Tensor<2>, targets: &LossTargets) -> Tensor<1> {
    let device = logits.device();
    let count = targets.tokens.len();
    assert_shape!(logits, [count, _]);
    let tokens = int_tensor(targets.tokens.clone(), &device).reshape([count, 1]);
    log_softmax(cast_to(logits, DType::F32), 1).gather(1, tokens).mean().neg()
}

/// The sum of the cross-entropies of all rows, in f32.
///
/// # Shapes
/// - logits: `[rows, vocab_size]`
/// - tokens: the right one of each row
/// - output: `[1]`, f32
pub fn cross_entropy_sum(logits: Tensor<2>, tokens: &[i64]) -> Tensor<1> {
    let logits = cast_to(logits, DType::F32);
    if let Some(sum) = super::kernels::cross_entropy_sum(&logits, tokens) {
        return sum;
    }
    let tokens = int_tensor(tokens.to_vec(), &logits.device()).reshape([tokens.len(), 1]);
    log_softmax(logits, 1).gather(1, tokens).sum().neg()
}

fn int_tensor(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let len = values.len();
    // Index tensors carry no gradient; the plain device keeps them out of any graph.
    Tensor::from_data(TensorData::new(values, [len]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_logits_cost_log_of_the_vocabulary() {
        let device = Device::flex();
        let targets = LossTargets::new(&[vec![IGNORE_INDEX, 3, 1], vec![2, IGNORE_INDEX, 0]], 4).unwrap();
        assert_eq!(targets.positions, [0, 1, 4]);
        assert_eq!(targets.tokens, [3, 1, 0]);
        let loss: f32 = cross_entropy(Tensor::zeros([3, 4], &device), &targets).into_scalar();
        assert!((loss - 4f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn nothing_supervised_is_an_error_not_nan() {
        let error = LossTargets::new(&[vec![IGNORE_INDEX; 3]], 4).unwrap_err();
        assert!(matches!(error, LossError::NoLabels { rows: 1 }), "{error}");
        let error = LossTargets::new(&[vec![0, 9]], 4).unwrap_err();
        assert!(error.to_string().contains('9'), "{error}");
    }
}
