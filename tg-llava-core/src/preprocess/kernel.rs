//! The weights of one resampling pass, in fixed point, and sums with them.

use std::ops::Range;

use super::filter::Filter;

/// Bits behind the point of a coefficient: 32, less eight for the sample, less two for overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// The weights of every output of one pass.
pub(super) struct Kernel {
    /// First source sample and the range of its weights, for each output.
    spans: Vec<(usize, Range<usize>)>,
    weights: Vec<i32>,
}

/// The weights of one output.
pub(super) struct Taps<'a> {
    pub first: usize,
    pub weights: &'a [i32],
}

impl Kernel {
    pub fn new(filter: Filter, from: usize, to: usize, outputs: Range<usize>) -> Self {
        let mut kernel = Self { spans: Vec::with_capacity(outputs.len()), weights: Vec::new() };
        if from == to {
            outputs.for_each(|output| kernel.push(output, &[1.0]));
        } else if filter == Filter::Nearest {
            // Pillow adds up the step, so its rounding errors add up as well.
            let step = from as f64 / to as f64;
            let mut centre = step * 0.5;
            for output in 0..outputs.end {
                if outputs.contains(&output) {
                    kernel.push((centre as usize).min(from - 1), &[1.0]);
                }
                centre += step;
            }
        } else {
            outputs.for_each(|output| kernel.push_filtered(filter, from, to, output));
        }
        kernel
    }

    fn push_filtered(&mut self, filter: Filter, from: usize, to: usize, output: usize) {
        let scale = from as f64 / to as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let centre = (output as f64 + 0.5) * scale;
        // A conversion from a negative number gives zero, which is the bound wanted.
        let first = (centre - support + 0.5) as usize;
        let last = ((centre + support + 0.5) as usize).min(from);
        let inverse = 1.0 / filter_scale;
        let mut weights: Vec<f64> =
            (first..last).map(|source| filter.weight((source as f64 - centre + 0.5) * inverse)).collect();
        let total: f64 = weights.iter().sum();
        if total != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= total);
        }
        self.push(first, &weights);
    }

    fn push(&mut self, first: usize, weights: &[f64]) {
        let start = self.weights.len();
        let one = f64::from(1_u32 << PRECISION);
        self.weights.extend(weights.iter().map(|weight| (weight * one).round() as i32));
        self.spans.push((first, start..self.weights.len()));
    }

    pub fn outputs(&self) -> usize {
        self.spans.len()
    }

    pub fn taps(&self) -> impl Iterator<Item = Taps<'_>> {
        self.spans.iter().map(|(first, range)| Taps { first: *first, weights: &self.weights[range.clone()] })
    }

    /// The source samples that any output needs.
    pub fn source_range(&self) -> Range<usize> {
        let first = self.spans.iter().map(|(first, _)| *first).min().unwrap_or(0);
        let last = self.spans.iter().map(|(first, range)| first + range.len()).max().unwrap_or(0);
        first..last
    }

    /// All outputs along one row of RGB.
    pub fn apply(&self, source: &[u8], result: &mut [u8]) {
        for (taps, pixel) in self.taps().zip(result.chunks_exact_mut(3)) {
            let source = source[taps.first * 3..].chunks_exact(3);
            let mut sums = [HALF; 3];
            for (sample, weight) in source.zip(taps.weights) {
                sums[0] += i32::from(sample[0]) * weight;
                sums[1] += i32::from(sample[1]) * weight;
                sums[2] += i32::from(sample[2]) * weight;
            }
            pixel.copy_from_slice(&sums.map(to_byte));
        }
    }
}

/// A row of weighted sums.
pub(super) struct Sums(Vec<i32>);

impl Sums {
    pub fn new(length: usize) -> Self {
        Self(vec![HALF; length])
    }

    pub fn add(&mut self, row: &[u8], weight: i32) {
        for (sum, &sample) in self.0.iter_mut().zip(row) {
            *sum += i32::from(sample) * weight;
        }
    }

    /// Rounds the sums into `result` and starts anew.
    pub fn take(&mut self, result: &mut [u8]) {
        for (value, sum) in result.iter_mut().zip(&mut self.0) {
            *value = to_byte(std::mem::replace(sum, HALF));
        }
    }
}

/// One half in fixed point: sums start with it, so that cutting off rounds.
const HALF: i32 = 1 << (PRECISION - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
