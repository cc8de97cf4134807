//! Medians of repeated runs.

use std::time::Instant;

use burn::tensor::Device;

use crate::failure::Failure;

/// Times of repeated runs, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Times(Vec<f64>);

impl Times {
    /// From single times; there must be one at least.
    pub(super) fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    /// Median, in seconds.
    pub(super) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() % 2 {
            0 => (self.0[middle - 1] + self.0[middle]) / 2.0,
            _ => self.0[middle],
        }
    }

    /// Shortest, in seconds.
    pub(super) fn shortest(&self) -> f64 {
        self.0[0]
    }

    /// Median, in milliseconds.
    pub(super) fn milliseconds(&self) -> f64 {
        self.median() * 1e3
    }

    /// Shortest and longest, in milliseconds.
    pub(super) fn range(&self) -> [f64; 2] {
        [self.0[0], self.0[self.0.len() - 1]].map(|seconds| round(seconds * 1e3))
    }
}

/// Runs `work` once uncounted and `reps` times counted, each time until the device is done.
///
/// # Errors
/// As `work`, and where the device fails.
pub(super) fn repeat(
    device: &Device,
    reps: usize,
    mut work: impl FnMut() -> Result<(), Failure>,
) -> Result<Times, Failure> {
    let mut seconds = Vec::with_capacity(reps);
    for rep in 0..=reps {
        let start = Instant::now();
        work()?;
        wait(device)?;
        if rep > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(Times::new(seconds))
}

/// Waits until all that was asked of `device` is done.
///
/// # Errors
/// [`Failure::Run`] where the device fails.
pub(super) fn wait(device: &Device) -> Result<(), Failure> {
    device.sync().map_err(|error| Failure::Run(anyhow::anyhow!("the device failed: {error}")))
}

/// Four digits are more than a shared machine repeats.
pub(super) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let unit = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(Times::new(vec![3.0, 1.0, 2.0]).median(), 2.0);
        let even = Times::new(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.median(), even.shortest(), even.range()), (2.5, 1.0, [1000.0, 4000.0]));
    }

    #[test]
    fn four_digits() {
        assert_eq!([0.0, 12.345_67, 0.001_234_56, 98_765.4].map(round), [0.0, 12.35, 0.001_235, 98_770.0]);
    }
}
