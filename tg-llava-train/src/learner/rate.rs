use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::optim::LearningRate;

use crate::schedule::LrSchedule;

/// An [`LrSchedule`] as burn-train steps it: the rate of the first optimizer step, then of the second, and so on.
#[derive(Debug, Clone)]
pub struct ScheduledRate {
    schedule: LrSchedule,
    peak: f64,
    step: usize,
}

/// Key of the steps made in a record.
const STEP: &str = "step";

impl ScheduledRate {
    /// `schedule` with a peak rate of `peak`, before the first step.
    pub fn new(schedule: LrSchedule, peak: f64) -> Self {
        Self { schedule, peak, step: 0 }
    }
}

impl LrScheduler for ScheduledRate {
    fn step(&mut self) -> LearningRate {
        let rate = self.schedule.lr(self.step, self.peak);
        self.step += 1;
        rate
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar(STEP, self.step)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.step = record.scalar(STEP).unwrap_or(self.step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{ScheduleKind, Warmup};

    #[test]
    fn the_rates_are_the_schedules_and_go_on_from_a_record() {
        let schedule = LrSchedule::new(ScheduleKind::Cosine, Warmup::Steps(2), 6);
        let mut rate = ScheduledRate::new(schedule, 0.5);
        let expected: Vec<f64> = (0..6).map(|step| schedule.lr(step, 0.5)).collect();
        let mut rates: Vec<f64> = (0..3).map(|_| rate.step()).collect();
        let mut resumed = ScheduledRate::new(schedule, 0.5);
        resumed.load_record(rate.to_record());
        rates.extend((3..6).map(|_| resumed.step()));
        assert_eq!(rates, expected);
    }
}
