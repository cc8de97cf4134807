//! One component of a JPEG, stretched to the picture's size as libjpeg does it.
//!
//! Follows `jdsample.c` of libjpeg-turbo: half as many samples are weighed three to one with their neighbours
//! ("fancy" upsampling), anything coarser is repeated.

use libjpeg_turbo_rs::{FrameHeader, RawImage};

/// The samples of one component, and how they reach the picture's size.
pub(super) struct Component {
    samples: Vec<u8>,
    /// Samples from one row to the next; whole blocks, so more than `width`.
    stride: usize,
    /// Columns and rows that belong to the picture.
    width: usize,
    height: usize,
    /// Pixels for each sample.
    across: usize,
    down: usize,
}

impl Component {
    /// All components of a picture, or `None` where libjpeg has no way to stretch one either: its sampling
    /// factor does not divide the largest.
    pub fn all(frame: &FrameHeader, raw: RawImage) -> Option<Vec<Self>> {
        let horizontal = |index: usize| usize::from(frame.components[index].horizontal_sampling);
        let vertical = |index: usize| usize::from(frame.components[index].vertical_sampling);
        let count = frame.components.len();
        let most_across = (0..count).map(horizontal).max()?;
        let most_down = (0..count).map(vertical).max()?;
        let component = |(index, (samples, &stride)): (usize, (Vec<u8>, &usize))| {
            let (own_across, own_down) = (horizontal(index), vertical(index));
            (most_across.is_multiple_of(own_across) && most_down.is_multiple_of(own_down)).then(|| Self {
                samples,
                stride,
                width: (raw.width * own_across).div_ceil(most_across),
                height: (raw.height * own_down).div_ceil(most_down),
                across: most_across / own_across,
                down: most_down / own_down,
            })
        };
        raw.planes.into_iter().zip(&raw.plane_widths).enumerate().map(component).collect()
    }

    /// Writes the component's values along row `y` of the picture.
    pub fn row(&self, y: usize, values: &mut [u8]) {
        match (self.across, self.down) {
            (1, 1) => values.copy_from_slice(&self.samples(y)[..values.len()]),
            // Too narrow to have neighbours on both sides: libjpeg repeats.
            (2, 1 | 2) if self.width <= 2 => self.repeat(y, values),
            (2, 1) => triangle(self.samples(y).iter().map(|&value| value.into()), values, (2, 1, 2)),
            (2, 2) => triangle(self.weighed_rows(y), values, (4, 8, 7)),
            (1, 2) => {
                // Upper rows round down, lower rows up.
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                let sums = self.weighed_rows(y);
                values.iter_mut().zip(sums).for_each(|(value, sum)| *value = ((sum + bias) >> 2) as u8);
            }
            _ => self.repeat(y, values),
        }
    }

    /// A row of samples, without what fills the last block.
    fn samples(&self, row: usize) -> &[u8] {
        &self.samples[row * self.stride..][..self.width]
    }

    fn repeat(&self, y: usize, values: &mut [u8]) {
        let row = self.samples(y / self.down);
        values.chunks_mut(self.across).zip(row).for_each(|(pixels, &sample)| pixels.fill(sample));
    }

    /// Three parts of the row of samples that row `y` lies in and one of the nearer neighbour, where half as many
    /// rows are stored; the border repeats.
    fn weighed_rows(&self, y: usize) -> impl Iterator<Item = u16> + Clone {
        let near = y / 2;
        let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(self.height - 1) };
        let rows = self.samples(near).iter().zip(self.samples(far));
        rows.map(|(&near, &far)| 3 * u16::from(near) + u16::from(far))
    }
}

/// Twice as many values as `samples`: three parts of the sample and one of the left, then of the right
/// neighbour. `rounding` is the shift, and what is added before it for the left and the right value.
fn triangle(
    samples: impl Iterator<Item = u16> + Clone,
    values: &mut [u8],
    (shift, left, right): (u32, u16, u16),
) {
    let before = samples.clone().take(1).chain(samples.clone());
    let mut behind = samples.clone().skip(1);
    for ((pixels, sample), before) in values.chunks_mut(2).zip(samples).zip(before) {
        let behind = behind.next().unwrap_or(sample);
        pixels[0] = ((3 * sample + before + left) >> shift) as u8;
        if let Some(pixel) = pixels.get_mut(1) {
            *pixel = ((3 * sample + behind + right) >> shift) as u8;
        }
    }
}
