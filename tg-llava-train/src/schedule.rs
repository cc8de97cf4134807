//! Learning-rate schedules of the HF Trainer (`transformers/optimization.py`, 4.37.2).

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The shape of the schedule after the warm-up (`lr_scheduler_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Half a cosine from the peak to 0.
    #[default]
    Cosine,
    /// A straight line from the peak to 0.
    Linear,
    /// The peak at every step; there is no warm-up.
    Constant,
    /// The peak after the warm-up.
    ConstantWithWarmup,
}

/// How long the learning rate rises from 0 to its peak.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// Optimizer steps (`warmup_steps`).
    Steps(usize),
    /// A share of all steps, rounded up (`warmup_ratio`).
    Ratio(f64),
}

impl Warmup {
    /// The number of optimizer steps out of `total_steps`.
    pub fn steps(self, total_steps: usize) -> usize {
        match self {
            Self::Steps(steps) => steps,
            Self::Ratio(ratio) => (total_steps as f64 * ratio).ceil() as usize,
        }
    }
}

/// The share of the peak learning rate at each optimizer step of a run.
///
/// One schedule serves all parameter groups: a group's rate is its own peak times [`Self::factor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LrSchedule {
    kind: ScheduleKind,
    warmup_steps: usize,
    total_steps: usize,
}

impl LrSchedule {
    /// A schedule over `total_steps` optimizer steps.
    pub fn new(kind: ScheduleKind, warmup: Warmup, total_steps: usize) -> Self {
        Self { kind, warmup_steps: warmup.steps(total_steps), total_steps }
    }

    /// Optimizer steps of the warm-up.
    pub fn warmup_steps(&self) -> usize {
        self.warmup_steps
    }

    /// Optimizer steps of the run.
    pub fn total_steps(&self) -> usize {
        self.total_steps
    }

    /// The share of the peak used in optimizer step `step` (from 0), within `0..=1`; 0 after the end of a
    /// schedule that falls.
    ///
    /// Step 0 of a warm-up has 0: the first step moves nothing.
    pub fn factor(&self, step: usize) -> f64 {
        if self.kind != ScheduleKind::Constant && step < self.warmup_steps {
            return step as f64 / self.warmup_steps as f64;
        }
        let fall = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = step.saturating_sub(self.warmup_steps) as f64 / fall;
        match self.kind {
            ScheduleKind::Constant | ScheduleKind::ConstantWithWarmup => 1.0,
            // The formula would rise again beyond the end.
            ScheduleKind::Cosine | ScheduleKind::Linear if progress >= 1.0 => 0.0,
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            ScheduleKind::Linear => 1.0 - progress,
        }
    }

    /// The learning rate used in optimizer step `step` (from 0) by parameters whose peak is `peak`.
    pub fn lr(&self, step: usize, peak: f64) -> f64 {
        peak * self.factor(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    fn assert_close(found: f64, expected: f64, place: &str) {
        assert!(
            (found - expected).abs() <= 1e-12 * expected.abs().max(1e-4),
            "{place}: {found} != {expected}"
        );
    }

    #[test]
    fn recorded_runs_have_these_rates() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
        let mut rates = 0;
        for model in fs::read_dir(&models).unwrap() {
            for file in fs::read_dir(model.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if !(name.starts_with("train_") && name.ends_with(".json")) {
                    continue;
                }
                let run: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                let config = &run["config"];
                let kind: ScheduleKind = serde_json::from_value(config["scheduler"].clone()).unwrap();
                let total = config["steps"].as_u64().unwrap() as usize;
                let warmup = Warmup::Ratio(config["warmup_ratio"].as_f64().unwrap());
                let schedule = LrSchedule::new(kind, warmup, total);
                assert_eq!(schedule.warmup_steps() as u64, config["warmup_steps"].as_u64().unwrap());
                let peak = config["peak_lr"].as_f64().unwrap();
                for record in run["steps"].as_array().unwrap() {
                    let step = record["step"].as_u64().unwrap() as usize;
                    let place = format!("{} step {step}", path.display());
                    assert_close(schedule.lr(step, peak), record["lr"].as_f64().unwrap(), &place);
                    let after = record["lr_after_scheduler_step"].as_f64().unwrap();
                    assert_close(schedule.lr(step + 1, peak), after, &place);
                    rates += 2;
                }
            }
        }
        assert!(rates > 0, "no train_*.json under {}", models.display());
    }

    #[test]
    fn ten_steps_of_each_kind() {
        let factors = |kind, warmup| {
            let schedule = LrSchedule::new(kind, warmup, 10);
            (0..=11).map(|step| (schedule.factor(step) * 1e4).round() / 1e4).collect::<Vec<_>>()
        };
        assert_eq!(
            factors(ScheduleKind::Linear, Warmup::Steps(2)),
            [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
        );
        assert_eq!(
            factors(ScheduleKind::Cosine, Warmup::Steps(2)),
            [0.0, 0.5, 1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381, 0.0, 0.0]
        );
        assert_eq!(factors(ScheduleKind::Constant, Warmup::Steps(2)), [1.0; 12]);
        let mut expected = [1.0; 12];
        expected[..3].copy_from_slice(&[0.0, 0.3333, 0.6667]);
        assert_eq!(factors(ScheduleKind::ConstantWithWarmup, Warmup::Steps(3)), expected);
    }

    #[test]
    fn a_ratio_is_rounded_up_and_no_warmup_starts_at_the_peak() {
        assert_eq!(Warmup::Ratio(0.03).steps(5198), 156);
        assert_eq!(Warmup::Ratio(0.03).steps(10), 1);
        assert_eq!(Warmup::Ratio(0.0).steps(10), 0);
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::ConstantWithWarmup] {
            assert_eq!(LrSchedule::new(kind, Warmup::Steps(0), 10).factor(0), 1.0);
            // A warm-up longer than the run is cut off by the run's end.
            assert_eq!(LrSchedule::new(kind, Warmup::Steps(20), 10).factor(10), 0.5);
        }
    }
}
