//! Resampling, in the integer arithmetic of Pillow.
//!
//! Pillow (`src/libImaging/Resample.c`) weighs eight-bit samples with coefficients in fixed point of 22 bits, along rows
//! and along columns, and rounds to eight bits after each. A shrinking filter widens with the ratio, so it does not
//! alias. Here only the wanted window of the result is computed, and the border of a padded picture is never stored: an
//! extreme strip costs no more than its pixels.

use image::{Rgb, RgbImage};

use super::geometry::{Size, Window};

/// Resampling filters, by the numbers that Pillow and Hugging Face's `resample` key give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// 0: the nearest sample, without any averaging.
    Nearest,
    /// 1: a windowed sinc over six samples.
    Lanczos,
    /// 2: a triangle over two samples.
    Bilinear,
    /// 3: the cubic with a = -0.5 over four samples; what CLIP and SigLIP use.
    Bicubic,
    /// 4: the mean of the samples covered.
    Box,
    /// 5: a windowed sinc over two samples.
    Hamming,
}

impl Filter {
    /// The filter with Pillow's number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming]
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    /// Half the filter's width, in samples.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Self::Nearest => 0.0,
            Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Hamming if distance == 0.0 => 1.0,
            Self::Hamming if distance >= 1.0 => 0.0,
            Self::Hamming => {
                let angle = distance * std::f64::consts::PI;
                angle.sin() / angle * (0.54 + 0.46 * angle.cos())
            }
            Self::Bicubic => {
                const A: f64 = -0.5;
                if distance < 1.0 {
                    ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
                } else if distance < 2.0 {
                    (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let angle = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { angle.sin() / angle }
}

/// A picture on a larger ground of one colour, which is not stored.
#[derive(Debug, Clone, Copy)]
pub struct Canvas<'a> {
    picture: &'a RgbImage,
    size: Size,
    /// Where the picture's first column and row lie.
    offset: (usize, usize),
    ground: Rgb<u8>,
}

impl<'a> Canvas<'a> {
    /// The picture alone.
    pub fn plain(picture: &'a RgbImage) -> Self {
        Self { picture, size: Size::of(picture), offset: (0, 0), ground: Rgb([0; 3]) }
    }

    /// The picture with its first pixel at `offset` (column, row) of a ground of `size`.
    ///
    /// # Panics
    /// Where the picture does not lie inside the ground.
    pub fn padded(picture: &'a RgbImage, size: Size, offset: (usize, usize), ground: [u8; 3]) -> Self {
        let own = Size::of(picture);
        assert!(
            offset.0 + own.width <= size.width && offset.1 + own.height <= size.height,
            "a picture of {own:?} at {offset:?} reaches beyond its ground of {size:?}"
        );
        Self { picture, size, offset, ground: Rgb(ground) }
    }

    /// Size of the ground in pixels.
    pub fn size(&self) -> Size {
        self.size
    }

    /// One row of nothing but ground.
    fn ground_row(&self) -> Vec<u8> {
        self.ground.0.repeat(self.size.width)
    }

    /// The picture's part of row `y` of the canvas, if it has one there.
    fn picture_row(&self, y: usize) -> Option<&'a [u8]> {
        let row_bytes = self.picture.width() as usize * 3;
        self.picture.as_raw().chunks_exact(row_bytes).nth(y.checked_sub(self.offset.1)?)
    }

    /// Lays a picture's row over a row of ground.
    fn overlay(&self, picture_row: &[u8], ground_row: &mut [u8]) {
        let start = self.offset.0 * 3;
        ground_row[start..start + picture_row.len()].copy_from_slice(picture_row);
    }
}

/// The whole of `picture` at `size`.
///
/// # Panics
/// Where the picture or `size` has no pixels.
pub fn resize(picture: &RgbImage, size: Size, filter: Filter) -> RgbImage {
    resize_window(&Canvas::plain(picture), size, Window::whole(size), filter)
}

/// What `window` shows of `canvas` at `size`; black (zero) where the window reaches beyond it.
///
/// The result has the window's size.
///
/// # Panics
/// Where the canvas, `size` or the window has no pixels.
pub fn resize_window(canvas: &Canvas<'_>, size: Size, window: Window, filter: Filter) -> RgbImage {
    let from = canvas.size();
    for (what, size) in [("source", from), ("result", size), ("window", window.size)] {
        assert!(size.width > 0 && size.height > 0, "the {what} of a resize has no pixels: {size:?}");
    }
    let (columns, left) = visible(window.left, window.size.width, size.width);
    let (rows, top) = visible(window.top, window.size.height, size.height);
    let mut result = RgbImage::new(window.size.width as u32, window.size.height as u32);
    if columns.is_empty() || rows.is_empty() {
        return result;
    }
    let vertical = Kernel::new(filter, from.height, size.height, rows);
    let horizontal = Kernel::new(filter, from.width, size.width, columns);
    let row_bytes = horizontal.outputs() * 3;
    let results = result.as_mut().chunks_exact_mut(window.size.width * 3).skip(top);
    let results = results.map(|row| &mut row[left * 3..left * 3 + row_bytes]);
    if columns_first(from, size) {
        columns_then_rows(canvas, &horizontal, &vertical, results);
    } else {
        rows_then_columns(canvas, &horizontal, &vertical, results);
    }
    result
}

/// Whether Pillow shrinks along columns before it does so along rows. The order shows, since each pass rounds.
///
/// Pillow 13 does where more than twice as many rows as columns go away; older versions never do.
fn columns_first(from: Size, to: Size) -> bool {
    from.height > to.height && from.height + 2 * to.width > to.height + 2 * from.width
}

/// The part of `start..start + length` inside `0..limit`, and where in the window it begins.
fn visible(start: i64, length: usize, limit: usize) -> (std::ops::Range<usize>, usize) {
    let clip = |position: i64| usize::try_from(position.max(0)).map_or(limit, |position| position.min(limit));
    let range = clip(start)..clip(start.saturating_add_unsigned(length as u64));
    (range, usize::try_from(start.saturating_neg().max(0)).unwrap_or(usize::MAX))
}

fn rows_then_columns<'r>(
    canvas: &Canvas<'_>,
    horizontal: &Kernel,
    vertical: &Kernel,
    results: impl Iterator<Item = &'r mut [u8]>,
) {
    let row_bytes = horizontal.outputs() * 3;
    let needed = vertical.source_range();
    let mut narrowed = vec![0; needed.len() * row_bytes];
    let mut full_row = canvas.ground_row();
    let mut ground = vec![0; row_bytes];
    horizontal.apply(&full_row, &mut ground);
    for (y, row) in needed.clone().zip(narrowed.chunks_exact_mut(row_bytes)) {
        if let Some(pixels) = canvas.picture_row(y) {
            canvas.overlay(pixels, &mut full_row);
            horizontal.apply(&full_row, row);
        } else {
            row.copy_from_slice(&ground);
        }
    }
    let mut sums = Sums::new(row_bytes);
    for (taps, result) in vertical.taps().zip(results) {
        let rows = narrowed.chunks_exact(row_bytes).skip(taps.first - needed.start);
        rows.zip(taps.weights).for_each(|(row, &weight)| sums.add(row, weight));
        sums.take(result);
    }
}

fn columns_then_rows<'r>(
    canvas: &Canvas<'_>,
    horizontal: &Kernel,
    vertical: &Kernel,
    results: impl Iterator<Item = &'r mut [u8]>,
) {
    let ground = canvas.ground_row();
    let mut full_row = ground.clone();
    let mut sums = Sums::new(ground.len());
    let mut shortened = vec![0; ground.len()];
    for (taps, result) in vertical.taps().zip(results) {
        for (y, &weight) in (taps.first..).zip(taps.weights) {
            if let Some(pixels) = canvas.picture_row(y) {
                canvas.overlay(pixels, &mut full_row);
                sums.add(&full_row, weight);
            } else {
                sums.add(&ground, weight);
            }
        }
        sums.take(&mut shortened);
        horizontal.apply(&shortened, result);
    }
}

/// Bits behind the point of a coefficient: 32, less eight for the sample, less two for overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// The weights of every output of one pass.
struct Kernel {
    /// First source sample and the range of its weights, for each output.
    spans: Vec<(usize, std::ops::Range<usize>)>,
    weights: Vec<i32>,
}

/// The weights of one output.
struct Taps<'a> {
    first: usize,
    weights: &'a [i32],
}

impl Kernel {
    fn new(filter: Filter, from: usize, to: usize, outputs: std::ops::Range<usize>) -> Self {
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

    fn outputs(&self) -> usize {
        self.spans.len()
    }

    fn taps(&self) -> impl Iterator<Item = Taps<'_>> {
        self.spans.iter().map(|(first, range)| Taps { first: *first, weights: &self.weights[range.clone()] })
    }

    /// The source samples that any output needs.
    fn source_range(&self) -> std::ops::Range<usize> {
        let first = self.spans.iter().map(|(first, _)| *first).min().unwrap_or(0);
        let last = self.spans.iter().map(|(first, range)| first + range.len()).max().unwrap_or(0);
        first..last
    }

    /// All outputs along one row of RGB.
    fn apply(&self, source: &[u8], result: &mut [u8]) {
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
struct Sums(Vec<i32>);

impl Sums {
    fn new(length: usize) -> Self {
        Self(vec![HALF; length])
    }

    fn add(&mut self, row: &[u8], weight: i32) {
        for (sum, &sample) in self.0.iter_mut().zip(row) {
            *sum += i32::from(sample) * weight;
        }
    }

    /// Rounds the sums into `result` and starts anew.
    fn take(&mut self, result: &mut [u8]) {
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
