//! `[optim]`: how the weights are updated.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};

use super::PerComponent;
use crate::{
    engine::LossMean,
    optim::DecayRule,
    schedule::{ScheduleKind, Warmup},
};

/// AdamW and its schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimOptions {
    /// Peak learning rate (`learning_rate`). Default: 1e-3 in stage 1, 2e-5 in 2, 2e-4 with
    /// `[lora]`.
    pub lr: f64,
    /// Weight decay, relative to the learning rate. Default 0.
    pub weight_decay: f64,
    /// Which weights decay: `except_norms`, or `reference` for what the reference's trainer does. Default
    /// `except_norms`.
    pub decay_rule: DecayRule,
    /// Decay of the first moment (`adam_beta1`). Default 0.9.
    pub beta1: f64,
    /// Decay of the second moment (`adam_beta2`). Default 0.999.
    pub beta2: f64,
    /// Added to the root of the second moment (`adam_epsilon`). Default 1e-8.
    pub epsilon: f64,
    /// Norm over all gradients together above which they are scaled down; 0 for no clipping. Default 1.0.
    pub max_grad_norm: f64,
    /// Course of the learning rate after the warm-up (`lr_scheduler_type`): `cosine`, `linear`, `constant` or
    /// `constant_with_warmup`. Default `cosine`.
    pub schedule: ScheduleKind,
    /// Warm-up as a share of all optimizer steps, in `[0, 1]`. Default 0.03, or 0 with `warmup_steps`.
    pub warmup_ratio: Option<f64>,
    /// Warm-up in optimizer steps, instead of `warmup_ratio`. Default: none.
    pub warmup_steps: Option<usize>,
    /// What the loss of a step is the mean over: `micro_batches`, each with the mean of its own tokens, or `tokens`,
    /// all supervised ones of the step. Default `micro_batches`.
    pub loss_mean: LossMean,
    /// What to do about a loss or gradient that is not a number: `stop` or `skip` the step. Default `stop`.
    pub on_nan: OnNan,
    /// Factor on the loss so that f16 gradients stay above zero: `dynamic` or a number; plays no part in other
    /// formats. Default `dynamic`.
    pub loss_scale: LossScale,
    /// Peak learning rates of single components (`mm_projector_lr` and its like). Default: `lr` for all.
    pub lr_of: PerComponent<Option<f64>>,
}

impl Default for OptimOptions {
    fn default() -> Self {
        Self {
            lr: 2e-5,
            weight_decay: 0.0,
            decay_rule: DecayRule::default(),
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
            schedule: ScheduleKind::default(),
            warmup_ratio: None,
            warmup_steps: None,
            loss_mean: LossMean::default(),
            on_nan: OnNan::default(),
            loss_scale: LossScale::default(),
            lr_of: PerComponent::default(),
        }
    }
}

impl OptimOptions {
    /// The warm-up: as the HF Trainer has it, steps win over the ratio unless they are 0.
    pub fn warmup(&self) -> Warmup {
        match (self.warmup_steps, self.warmup_ratio) {
            (Some(0) | None, Some(ratio)) => Warmup::Ratio(ratio),
            (Some(steps), _) => Warmup::Steps(steps),
            (None, None) => Warmup::Ratio(0.03),
        }
    }
}

/// What to do about a loss or gradient that is not a finite number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNan {
    /// End the run with the ids of the samples.
    #[default]
    Stop,
    /// Leave the step out, and report it.
    Skip,
}

/// Factor on the loss in f16.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum LossScale {
    /// As large as the gradients allow, found while training.
    #[default]
    Dynamic,
    /// This one throughout.
    Fixed(f64),
}

impl Serialize for LossScale {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Dynamic => serializer.serialize_str("dynamic"),
            Self::Fixed(scale) => serializer.serialize_f64(*scale),
        }
    }
}

impl<'de> Deserialize<'de> for LossScale {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScaleVisitor;
        impl Visitor<'_> for ScaleVisitor {
            type Value = LossScale;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"dynamic\" or a number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<LossScale, E> {
                match text {
                    "dynamic" => Ok(LossScale::Dynamic),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_f64<E>(self, scale: f64) -> Result<LossScale, E> {
                Ok(LossScale::Fixed(scale))
            }

            fn visit_i64<E>(self, scale: i64) -> Result<LossScale, E> {
                Ok(LossScale::Fixed(scale as f64))
            }
        }
        deserializer.deserialize_any(ScaleVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_win_over_the_ratio_unless_they_are_zero() {
        let warmup = |warmup_steps, warmup_ratio| {
            OptimOptions { warmup_steps, warmup_ratio, ..OptimOptions::default() }.warmup()
        };
        assert_eq!(warmup(None, None), Warmup::Ratio(0.03));
        assert_eq!(warmup(None, Some(0.1)), Warmup::Ratio(0.1));
        assert_eq!(warmup(Some(0), Some(0.1)), Warmup::Ratio(0.1));
        assert_eq!(warmup(Some(0), None), Warmup::Steps(0));
        assert_eq!(warmup(Some(7), None), Warmup::Steps(7));
        assert_eq!(warmup(Some(7), Some(0.1)), Warmup::Steps(7));
    }
}
