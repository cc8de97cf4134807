//! Resampling, in the integer arithmetic of Pillow.
//!
//! Pillow (`src/libImaging/Resample.c`) weighs eight-bit samples with coefficients in fixed point of 22 bits,
//! along rows and along columns, and rounds to eight bits after each. A shrinking filter widens with the
//! ratio, so it does not alias. Here only the wanted window of the result is computed. The border of a padded
//! picture is neither stored nor walked: sums of integers do not depend on their order, so its colour enters as one
//! product. An extreme strip costs no more than its pixels.

use std::{
    borrow::{Borrow, Cow},
    ops::Range,
};

use image::{Rgb, RgbImage};

pub use super::filter::Filter;
use super::{
    geometry::{Size, Window},
    kernel::{Pass, Sums, Taps, ground_alone},
};

/// How many weights of a pass along rows are held at a time (512 MiB).
const MAX_WEIGHTS: usize = 1 << 27;

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

    /// The passes along rows and along columns that give `size`.
    fn passes(&self, size: Size, filter: Filter) -> (Pass, Pass) {
        let (own, (left, top)) = (Size::of(self.picture), self.offset);
        let pass =
            |from, to, offset: usize, length| Pass { filter, from, to, stored: offset..offset + length };
        (
            pass(self.size.width, size.width, left, own.width),
            pass(self.size.height, size.height, top, own.height),
        )
    }

    /// Row `y` of the picture.
    fn row(&self, y: usize) -> &'a [u8] {
        let length = self.picture.width() as usize * 3;
        &self.picture.as_raw()[y * length..][..length]
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
    let (horizontal, vertical) = canvas.passes(size, filter);
    let mut columns = horizontal.taps(columns);
    // Where a picture is low, few weights go down its columns, and rows may need several blocks; where it is high,
    // there is one block.
    let kept: Option<Vec<_>> =
        (canvas.picture.height() <= canvas.picture.width()).then(|| vertical.taps(rows.clone()).collect());
    let mut done = left;
    loop {
        let block = next_block(&mut columns);
        if block.is_empty() {
            return result;
        }
        let vertical: Box<dyn Iterator<Item = Cow<'_, Taps>>> = match &kept {
            Some(taps) => Box::new(taps.iter().map(Cow::Borrowed)),
            None => Box::new(vertical.taps(rows.clone()).map(Cow::Owned)),
        };
        let place = done * 3..(done + block.len()) * 3;
        let lines = result.as_mut().chunks_exact_mut(window.size.width * 3).skip(top);
        let outputs = vertical.zip(lines.map(|line| &mut line[place.clone()]));
        if columns_first(from, size) {
            columns_then_rows(canvas, &block, outputs);
        } else {
            rows_then_columns(canvas, &block, outputs);
        }
        done += block.len();
    }
}

/// The next outputs whose weights may be held together.
fn next_block(columns: &mut impl Iterator<Item = Taps>) -> Vec<Taps> {
    let (mut block, mut weights) = (Vec::new(), 0);
    while weights < MAX_WEIGHTS
        && let Some(taps) = columns.next()
    {
        weights += taps.weights.len();
        block.push(taps);
    }
    block
}

/// Whether Pillow shrinks along columns before it does so along rows. The order shows, since each pass
/// rounds.
///
/// Pillow 13 does where more than twice as many rows as columns go away; older versions never do.
fn columns_first(from: Size, to: Size) -> bool {
    from.height > to.height && from.height + 2 * to.width > to.height + 2 * from.width
}

/// The part of `start..start + length` inside `0..limit`, and where in the window it begins.
fn visible(start: i64, length: usize, limit: usize) -> (Range<usize>, usize) {
    let clip = |position: i64| usize::try_from(position.max(0)).map_or(limit, |position| position.min(limit));
    let range = clip(start)..clip(start.saturating_add_unsigned(length as u64));
    (range, usize::try_from(start.saturating_neg().max(0)).unwrap_or(usize::MAX))
}

fn rows_then_columns<'r>(
    canvas: &Canvas<'_>,
    columns: &[Taps],
    outputs: impl Iterator<Item = (impl Borrow<Taps>, &'r mut [u8])>,
) {
    let colours = |taps: &Taps| canvas.ground.0.map(|value| ground_alone(value, taps.total()));
    let ground: Vec<u8> = columns.iter().flat_map(colours).collect();
    // Columns beside the picture show ground in every row.
    let touched = touched(columns);
    let bytes = touched.start * 3..touched.end * 3;
    let mut sums = Sums::new(bytes.len());
    // The picture's rows that are in use, as wide as the result.
    let (mut narrowed, mut rows) = (Vec::new(), 0..0);
    for (taps, result) in outputs {
        let (taps, total) = (taps.borrow(), taps.borrow().total());
        for (value, &ground) in result.iter_mut().zip(&ground) {
            *value = ground_alone(ground, total);
        }
        if touched.is_empty() {
            continue;
        }
        let wanted = taps.samples();
        narrowed.drain(..(wanted.start - rows.start).min(rows.len()) * bytes.len());
        rows = wanted.start..rows.end.max(wanted.start);
        while rows.end < wanted.end {
            let row = canvas.row(rows.end);
            narrowed
                .extend(columns[touched.clone()].iter().flat_map(|taps| taps.apply(row, canvas.ground.0)));
            rows.end += 1;
        }
        sums.start(&ground[bytes.clone()], taps.ground);
        narrowed
            .chunks_exact(bytes.len())
            .zip(&taps.weights)
            .for_each(|(row, &weight)| sums.add(row, weight));
        sums.write(&mut result[bytes.clone()]);
    }
}

/// The outputs that weigh any stored sample.
fn touched(outputs: &[Taps]) -> Range<usize> {
    let weighs = |taps: &Taps| !taps.weights.is_empty();
    let first = outputs.iter().position(weighs).unwrap_or(0);
    first..outputs.iter().rposition(weighs).map_or(first, |last| last + 1)
}

fn columns_then_rows<'r>(
    canvas: &Canvas<'_>,
    columns: &[Taps],
    outputs: impl Iterator<Item = (impl Borrow<Taps>, &'r mut [u8])>,
) {
    let mut shortened = vec![0; canvas.picture.width() as usize * 3];
    let mut sums = Sums::new(shortened.len());
    for (taps, result) in outputs {
        let taps = taps.borrow();
        sums.start(&canvas.ground.0, taps.ground);
        taps.samples().zip(&taps.weights).for_each(|(y, &weight)| sums.add(canvas.row(y), weight));
        sums.write(&mut shortened);
        let ground = canvas.ground.0.map(|value| ground_alone(value, taps.total()));
        for (taps, pixel) in columns.iter().zip(result.chunks_exact_mut(3)) {
            pixel.copy_from_slice(&taps.apply(&shortened, ground));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::decode_tests::fnv1a, *};

    fn pattern(width: u32, height: u32) -> RgbImage {
        let value = |x: u32, y: u32, channel: u32| (x * 37 + y * 91 + channel * 53 + x * y * 7) as u8;
        RgbImage::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|channel| value(x, y, channel))))
    }

    struct Case {
        from: (u32, u32),
        to: (usize, usize),
        /// FNV-1a of what Pillow 13.0.0 makes of `pattern`, by filter number.
        hashes: [u64; 6],
    }

    #[rustfmt::skip]
    const PILLOW: [Case; 7] = [
        Case { from: (40, 30), to: (17, 13), hashes: [0x9a173a614c33d2d0, 0x83019c2c4e285d7a, 0xb21e6756ad289625, 0xb0b456b9807a010a, 0x2bc36b21a2b2ff0e, 0x15140f85b0d4f15f] },
        Case { from: (13, 21), to: (56, 90), hashes: [0xd5fe3623240b2d2d, 0xf91f3d58ad951779, 0xc6e1ff8c70e85803, 0xad3d6bbb63c3815, 0xd5fe3623240b2d2d, 0xd2ae74f8078cc75b] },
        Case { from: (30, 90), to: (20, 30), hashes: [0x84dca05c40a8119f, 0x18b7da64de49f02b, 0xf5b320efc169f714, 0x733ff5f4b6e5da1e, 0xa5dec0ba29cc23f7, 0xcbbbe0e106e5c22d] },
        Case { from: (60, 20), to: (24, 45), hashes: [0xe5066a8c67430175, 0x2d74fe594d150605, 0xe7c9511730880f6d, 0x31f0fff92bdbe4f3, 0xcfebb24e56aedcd2, 0x47c97e30c1c56b9f] },
        Case { from: (37, 1), to: (60, 8), hashes: [0x34d6847615cec785, 0xeaf0862ca9b02e45, 0xf0d3c0e3708cbb75, 0x6c92ff91f4f47835, 0x34d6847615cec785, 0x44e42d4f6c7ec905] },
        Case { from: (1, 9), to: (5, 4), hashes: [0xc666c2c732bd3e75, 0x84f68364b3b969ed, 0x3529e0e981a3cf71, 0xa024bc0ec9afbb2d, 0x86a7ddce30ec650c, 0x439be9a168cfb272] },
        Case { from: (200, 150), to: (7, 5), hashes: [0x79f396632424b1c5, 0x60cedd664f08e74e, 0xa1d2859fc43675fc, 0xfa28c8cd384669dd, 0x725dfebd59fc5450, 0xa217bb81010c8521] },
    ];

    #[test]
    fn every_filter_equals_pillow() {
        for Case { from, to, hashes } in PILLOW {
            for (number, hash) in (0..).zip(hashes) {
                let filter = Filter::from_number(number).expect("six filters");
                let result = resize(&pattern(from.0, from.1), Size { width: to.0, height: to.1 }, filter);
                assert_eq!(fnv1a(result.as_raw()), hash, "{from:?} to {to:?} with {filter:?}");
            }
        }
    }

    #[test]
    fn columns_go_first_where_many_more_rows_than_columns_vanish() {
        let order = |from: (usize, usize), to: (usize, usize)| {
            let size = |(width, height)| Size { width, height };
            columns_first(size(from), size(to))
        };
        assert!(order((30, 90), (20, 69)));
        assert!(!order((30, 90), (20, 70)));
        assert!(order((30, 90), (40, 89)));
        assert!(!order((30, 90), (400, 91)));
        assert!(!order((4000, 3000), (448, 336)));
    }

    #[test]
    fn a_window_beside_the_picture_is_black() {
        let picture = pattern(4, 4);
        let window = Window { left: 9, top: -3, size: Size { width: 2, height: 3 } };
        let result = resize_window(&Canvas::plain(&picture), Size::square(8), window, Filter::Bicubic);
        assert!(result.as_raw().iter().all(|&value| value == 0));
    }

    fn filters() -> impl Strategy<Value = Filter> {
        (0_u64..6).prop_map(|number| Filter::from_number(number).expect("six filters"))
    }

    fn sizes() -> impl Strategy<Value = Size> {
        (1_usize..40, 1_usize..40).prop_map(|(width, height)| Size { width, height })
    }

    proptest! {
        #[test]
        fn a_window_is_cut_from_the_whole(
            from in sizes(), to in sizes(), window in sizes(), filter in filters(),
            left in -9_i64..40, top in -9_i64..40,
        ) {
            let picture = pattern(from.width as u32, from.height as u32);
            let whole = resize(&picture, to, filter);
            let cut = resize_window(&Canvas::plain(&picture), to, Window { left, top, size: window }, filter);
            for (x, y, pixel) in cut.enumerate_pixels() {
                let column = u32::try_from(i64::from(x) + left).ok();
                let row = u32::try_from(i64::from(y) + top).ok();
                let expected = column.zip(row).and_then(|(x, y)| whole.get_pixel_checked(x, y).copied());
                prop_assert_eq!(*pixel, expected.unwrap_or(Rgb([0; 3])));
            }
        }

        #[test]
        fn a_padded_canvas_equals_a_padded_picture(
            own in sizes(), extra in sizes(), to in sizes(), share in 0.0_f64..1.0, filter in filters(),
        ) {
            let ground = [9, 200, 77];
            let size = Size { width: own.width + extra.width, height: own.height + extra.height };
            let offset = ((extra.width as f64 * share) as usize, (extra.height as f64 * share) as usize);
            let picture = pattern(own.width as u32, own.height as u32);
            let mut padded = RgbImage::from_pixel(size.width as u32, size.height as u32, Rgb(ground));
            image::imageops::replace(&mut padded, &picture, offset.0 as i64, offset.1 as i64);
            let canvas = Canvas::padded(&picture, size, offset, ground);
            prop_assert_eq!(resize_window(&canvas, to, Window::whole(to), filter), resize(&padded, to, filter));
        }

        #[test]
        fn one_colour_stays(from in sizes(), to in sizes(), colour: [u8; 3], filter in filters()) {
            let picture = RgbImage::from_pixel(from.width as u32, from.height as u32, Rgb(colour));
            prop_assert!(resize(&picture, to, filter).pixels().all(|pixel| pixel.0 == colour));
        }

        #[test]
        fn the_same_size_is_the_same_picture(size in sizes(), filter in filters()) {
            let picture = pattern(size.width as u32, size.height as u32);
            prop_assert_eq!(resize(&picture, size, filter), picture);
        }
    }
}
