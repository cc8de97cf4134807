//! How the losses of a step's micro-batches become one.

use serde::{Deserialize, Serialize};

/// What a step's loss is the mean over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossMean {
    /// The micro-batches, each with the mean over its own supervised tokens: a token of a short answer counts more
    /// than one of a long answer. As the HF Trainer of the reference, without distribution.
    #[default]
    MicroBatches,
    /// All supervised tokens of the step, as if it were one batch.
    Tokens,
}

impl LossMean {
    /// What each micro-batch's mean loss is multiplied with before the mean over those that are not empty;
    /// `supervised` are the tokens that each learns.
    pub fn weights(self, supervised: &[usize]) -> Vec<f64> {
        let filled = supervised.iter().filter(|&&tokens| tokens > 0).count() as f64;
        let all = supervised.iter().sum::<usize>() as f64;
        let weight = |&tokens: &usize| match self {
            Self::MicroBatches => 1.0,
            Self::Tokens if tokens > 0 => tokens as f64 * filled / all,
            Self::Tokens => 0.0,
        };
        supervised.iter().map(weight).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_to_the_number_of_micro_batches_that_hold_something() {
        assert_eq!(LossMean::MicroBatches.weights(&[3, 0, 9]), [1.0, 1.0, 1.0]);
        assert_eq!(LossMean::Tokens.weights(&[3, 0, 9]), [0.5, 0.0, 1.5]);
        assert_eq!(LossMean::Tokens.weights(&[7]), [1.0]);
        assert_eq!(LossMean::Tokens.weights(&[0, 0]), [0.0, 0.0]);
    }
}
