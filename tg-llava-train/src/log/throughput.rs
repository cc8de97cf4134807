//! Speed over the last steps, and the time that is left.

use std::{collections::VecDeque, time::Duration};

/// What one optimizer step did and how long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepWork {
    /// Samples trained.
    pub samples: usize,
    /// Tokens trained, padding left out.
    pub tokens: usize,
    /// From the end of the step before to the end of this one.
    pub elapsed: Duration,
    /// The part of `elapsed` spent waiting for data.
    pub waited: Duration,
}

/// Rates over a window of the last steps. Holds no clock: the durations come from the caller.
#[derive(Debug, Clone)]
pub struct Throughput {
    window: VecDeque<StepWork>,
    capacity: usize,
}

impl Throughput {
    /// Rates over the last `steps` optimizer steps (at least 1).
    pub fn new(steps: usize) -> Self {
        let capacity = steps.max(1);
        Self { window: VecDeque::with_capacity(capacity), capacity }
    }

    /// Takes in a step.
    pub fn push(&mut self, work: StepWork) {
        if self.window.len() == self.capacity {
            self.window.pop_front();
        }
        self.window.push_back(work);
    }

    /// Samples per second; 0 before time has passed.
    pub fn samples_per_s(&self) -> f64 {
        self.per_second(self.window.iter().map(|work| work.samples as f64).sum())
    }

    /// Tokens per second; 0 before time has passed.
    pub fn tokens_per_s(&self) -> f64 {
        self.per_second(self.window.iter().map(|work| work.tokens as f64).sum())
    }

    /// Share of the time spent waiting for data, within `0..=1`.
    pub fn data_wait(&self) -> f64 {
        let waited: Duration = self.window.iter().map(|work| work.waited).sum();
        self.per_second(waited.as_secs_f64()).min(1.0)
    }

    /// How long `steps` more optimizer steps take at this speed; `None` before the first step, or where the
    /// answer is beyond all measure.
    pub fn eta(&self, steps: usize) -> Option<Duration> {
        let count = self.window.len();
        (count > 0)
            .then(|| Duration::try_from_secs_f64(self.elapsed() / count as f64 * steps as f64).ok())
            .flatten()
    }

    fn elapsed(&self) -> f64 {
        self.window.iter().map(|work| work.elapsed).sum::<Duration>().as_secs_f64()
    }

    fn per_second(&self, amount: f64) -> f64 {
        let elapsed = self.elapsed();
        if elapsed > 0.0 { amount / elapsed } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(samples: usize, tokens: usize, elapsed: u64, waited: u64) -> StepWork {
        let [elapsed, waited] = [elapsed, waited].map(Duration::from_millis);
        StepWork { samples, tokens, elapsed, waited }
    }

    #[test]
    fn nothing_is_known_before_the_first_step() {
        let rates = Throughput::new(4);
        assert_eq!((rates.samples_per_s(), rates.tokens_per_s(), rates.data_wait()), (0.0, 0.0, 0.0));
        assert_eq!(rates.eta(10), None);
    }

    #[test]
    fn rates_are_sums_over_sums() {
        let mut rates = Throughput::new(4);
        rates.push(work(8, 1000, 500, 0));
        rates.push(work(8, 3000, 1500, 500));
        assert_eq!((rates.samples_per_s(), rates.tokens_per_s(), rates.data_wait()), (8.0, 2000.0, 0.25));
        assert_eq!(rates.eta(10), Some(Duration::from_secs(10)));
        assert_eq!(rates.eta(0), Some(Duration::ZERO));
    }

    #[test]
    fn steps_leave_the_window() {
        let mut rates = Throughput::new(2);
        rates.push(work(1000, 1000, 60_000, 60_000));
        rates.push(work(4, 40, 1000, 0));
        rates.push(work(4, 40, 1000, 0));
        assert_eq!((rates.samples_per_s(), rates.tokens_per_s(), rates.data_wait()), (4.0, 40.0, 0.0));
        assert_eq!(rates.eta(3), Some(Duration::from_secs(3)));
    }

    #[test]
    fn odd_times_do_no_harm() {
        let mut rates = Throughput::new(0);
        rates.push(work(8, 8, 0, 5));
        assert_eq!((rates.samples_per_s(), rates.data_wait()), (0.0, 0.0));
        rates.push(work(8, 8, 10, 20));
        assert_eq!(rates.data_wait(), 1.0);
        assert_eq!(rates.eta(usize::MAX).map(|eta| eta > Duration::from_secs(1 << 50)), Some(true));
        rates.push(work(0, 0, u64::MAX, 0));
        assert_eq!(rates.eta(usize::MAX), None);
    }
}
