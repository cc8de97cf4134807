//! The weights of one resampling pass, in fixed point, and sums with them.

use std::ops::Range;

use super::filter::Filter;

/// Bits behind the point of a coefficient: 32, less eight for the sample, less two for overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// One pass: from `from` samples to `to`, along rows or along columns.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    pub filter: Filter,
    pub from: usize,
    pub to: usize,
    /// The samples that are stored; all others are ground.
    pub stored: Range<usize>,
}

/// The weights of one output.
#[derive(Debug, Clone)]
pub(super) struct Taps {
    /// First stored sample, counted from where they begin.
    pub first: usize,
    /// Weights of stored samples.
    pub weights: Vec<i32>,
    /// Sum of the weights of ground on either side.
    pub ground: i32,
}

impl Taps {
    /// The stored samples that are weighed.
    pub fn samples(&self) -> Range<usize> {
        self.first..self.first + self.weights.len()
    }

    /// The sum of all weights.
    pub fn total(&self) -> i32 {
        self.ground + self.weights.iter().sum::<i32>()
    }

    /// The output along one stored row of RGB.
    pub fn apply(&self, row: &[u8], ground: [u8; 3]) -> [u8; 3] {
        let mut sums = ground.map(|value| start(value, self.ground));
        for (sample, weight) in row[self.first * 3..].chunks_exact(3).zip(&self.weights) {
            sums[0] += i32::from(sample[0]) * weight;
            sums[1] += i32::from(sample[1]) * weight;
            sums[2] += i32::from(sample[2]) * weight;
        }
        sums.map(to_byte)
    }
}

impl Pass {
    /// The weights of `outputs` in turn. They are made one output at a time: those of a whole pass can take more
    /// memory than the picture.
    pub fn taps(&self, outputs: Range<usize>) -> impl Iterator<Item = Taps> + '_ {
        // Pillow adds up the step, so its rounding errors add up as well.
        let step = self.from as f64 / self.to as f64;
        let mut centre = step * 0.5;
        let nearest = self.filter == Filter::Nearest && self.from != self.to;
        if nearest {
            (0..outputs.start).for_each(|_| centre += step);
        }
        outputs.map(move |output| {
            if nearest {
                let sample = (centre as usize).min(self.from - 1);
                centre += step;
                self.fixed_point(sample, &[1.0])
            } else if self.from == self.to {
                self.fixed_point(output, &[1.0])
            } else {
                self.filtered(output)
            }
        })
    }

    fn filtered(&self, output: usize) -> Taps {
        let scale = self.from as f64 / self.to as f64;
        let filter_scale = scale.max(1.0);
        let support = self.filter.support() * filter_scale;
        let centre = (output as f64 + 0.5) * scale;
        // A conversion from a negative number gives zero, which is the bound wanted.
        let first = (centre - support + 0.5) as usize;
        let last = ((centre + support + 0.5) as usize).min(self.from);
        let inverse = 1.0 / filter_scale;
        let mut weights: Vec<f64> = (first..last)
            .map(|source| self.filter.weight((source as f64 - centre + 0.5) * inverse))
            .collect();
        let total: f64 = weights.iter().sum();
        if total != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= total);
        }
        self.fixed_point(first, &weights)
    }

    /// `weights` of the samples from `first` on, in fixed point.
    fn fixed_point(&self, first: usize, weights: &[f64]) -> Taps {
        let one = f64::from(1_u32 << PRECISION);
        let round = |weight: &f64| (weight * one).round() as i32;
        let sum = |weights: &[f64]| weights.iter().map(round).sum::<i32>();
        let before = self.stored.start.saturating_sub(first).min(weights.len());
        let end = self.stored.end.saturating_sub(first).clamp(before, weights.len());
        Taps {
            first: (first + before).clamp(self.stored.start, self.stored.end) - self.stored.start,
            weights: weights[before..end].iter().map(round).collect(),
            ground: sum(&weights[..before]) + sum(&weights[end..]),
        }
    }
}

/// A row of weighted sums.
pub(super) struct Sums(Vec<i32>);

impl Sums {
    pub fn new(length: usize) -> Self {
        Self(vec![0; length])
    }

    /// Starts with what the ground adds: its values, `ground` repeated, times `weight`.
    pub fn start(&mut self, ground: &[u8], weight: i32) {
        for (sum, &value) in self.0.iter_mut().zip(ground.iter().cycle()) {
            *sum = start(value, weight);
        }
    }

    pub fn add(&mut self, row: &[u8], weight: i32) {
        for (sum, &sample) in self.0.iter_mut().zip(row) {
            *sum += i32::from(sample) * weight;
        }
    }

    /// Rounds the sums into `result`.
    pub fn write(&self, result: &mut [u8]) {
        result.iter_mut().zip(&self.0).for_each(|(value, &sum)| *value = to_byte(sum));
    }
}

/// What becomes of ground alone.
pub(super) fn ground_alone(ground: u8, weight: i32) -> u8 {
    to_byte(start(ground, weight))
}

/// A sum that ground of `weight` begins. One half is added, so that cutting off rounds.
fn start(ground: u8, weight: i32) -> i32 {
    i32::from(ground) * weight + (1 << (PRECISION - 1))
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
