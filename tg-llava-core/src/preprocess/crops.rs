//! The four crops of a picture that the detail perceiver reads.

use super::geometry::quadrants;

/// What the detail crops show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DetailSource {
    /// The normalised picture, enlarged twofold: no new pixels, but what the reference's checkpoints were
    /// trained with.
    #[default]
    Upsampled,
    /// The original picture, prepared at twice the resolution.
    Native,
}

/// Normalised RGB.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// `[3, height, width]`.
    pub data: Vec<f32>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Twice the size, bilinear between pixel centres (torch's `interpolate` with `align_corners=false`).
pub fn upsample_2x(pixels: &Pixels) -> Pixels {
    let Pixels { height, width, .. } = *pixels;
    let rows: Vec<_> = (0..2 * height).map(|y| neighbours(y, height)).collect();
    let columns: Vec<_> = (0..2 * width).map(|x| neighbours(x, width)).collect();
    let mut data = Vec::with_capacity(4 * pixels.data.len());
    for plane in pixels.data.chunks_exact(height * width) {
        for &(above, below, lower) in &rows {
            let (above, below) = (&plane[above * width..][..width], &plane[below * width..][..width]);
            data.extend(columns.iter().map(|&(left, right, share)| {
                let upper = (1.0 - share) * above[left] + share * above[right];
                let under = (1.0 - share) * below[left] + share * below[right];
                (1.0 - lower) * upper + lower * under
            }));
        }
    }
    Pixels { data, height: 2 * height, width: 2 * width }
}

/// The two samples that `output` lies between, and the share of the second; the border repeats.
fn neighbours(output: usize, length: usize) -> (usize, usize, f32) {
    let position = ((output as f32 + 0.5) * 0.5 - 0.5).max(0.0);
    let first = position as usize;
    (first, (first + 1).min(length - 1), position - first as f32)
}

/// A square picture of even side cut in four: `[4, 3, side / 2, side / 2]`, in the order top left, top right,
/// bottom left, bottom right.
///
/// # Panics
/// Where the picture is no square of even side.
pub fn quadrant_crops(pixels: &Pixels) -> Vec<f32> {
    let Pixels { height, width, .. } = *pixels;
    assert!(height == width && height % 2 == 0, "{width}x{height} pixels cannot be cut into four squares");
    let side = height / 2;
    let mut crops = Vec::with_capacity(pixels.data.len());
    for (left, top) in quadrants(side) {
        for plane in pixels.data.chunks_exact(height * width) {
            for row in plane.chunks_exact(width).skip(top).take(side) {
                crops.extend_from_slice(&row[left..left + side]);
            }
        }
    }
    crops
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn enlarging_weighs_neighbours_three_to_one() {
        let pixels = Pixels { data: [[0.0_f32, 4.0, 8.0, 16.0]; 3].concat(), height: 2, width: 2 };
        let large = upsample_2x(&pixels);
        let expected: [f32; 16] =
            [0., 1., 3., 4., 2., 3.25, 5.75, 7., 6., 7.75, 11.25, 13., 8., 10., 14., 16.];
        assert_eq!(large.data, [expected; 3].concat());
    }

    #[test]
    fn crops_come_row_by_row() {
        let pixels = Pixels { data: (0..48).map(|value| value as f32).collect(), height: 4, width: 4 };
        let crops = quadrant_crops(&pixels);
        assert_eq!(crops[..8], [0., 1., 4., 5., 16., 17., 20., 21.]);
        assert_eq!(crops[12..16], [2., 3., 6., 7.]);
        assert_eq!(crops[24..28], [8., 9., 12., 13.]);
        assert_eq!(crops[36..40], [10., 11., 14., 15.]);
    }

    proptest! {
        #[test]
        fn enlarging_stays_between_the_extremes(
            data in proptest::collection::vec(-3.0_f32..3.0, 3 * 5 * 4),
        ) {
            let large = upsample_2x(&Pixels { data: data.clone(), height: 5, width: 4 });
            prop_assert_eq!((large.height, large.width, large.data.len()), (10, 8, 240));
            let (low, high) = (data.iter().copied().reduce(f32::min), data.iter().copied().reduce(f32::max));
            prop_assert!(large.data.iter().all(|&v| Some(v + 1e-5) >= low && Some(v - 1e-5) <= high));
        }
    }
}
