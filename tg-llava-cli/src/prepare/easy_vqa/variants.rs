//! Further pictures of the same shape: shifted and mirrored.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use image::{RgbImage, imageops};

use super::draws::Draws;

/// What a picture's copy is called: `12-c3`; copy 0 is the picture itself, `12`.
pub(super) fn variant_name(number: u64, copy: usize) -> String {
    match copy {
        0 => number.to_string(),
        copy => format!("{number}-c{copy}"),
    }
}

/// The picture with its shape elsewhere: shifted so far that the shape, its soft edge included, stays whole, and
/// one time in two mirrored left for right. What comes in at a border is the border's pixels again.
///
/// Along an axis on which the shape touches a border nothing is shifted. The shapes of easy-VQA stand upright on
/// one colour and may be anywhere, so these pictures are like its own; turned ones would not be.
pub(super) fn variant(picture: &RgbImage, draws: &mut Draws) -> RgbImage {
    let (width, height) = picture.dimensions();
    let (columns, rows) = shape(picture);
    let (right, down) = (shift(columns, width, draws), shift(rows, height, draws));
    let mut variant = RgbImage::from_fn(width, height, |x, y| {
        *picture.get_pixel(source(x, right, width), source(y, down, height))
    });
    if draws.chance(50) {
        imageops::flip_horizontal_in_place(&mut variant);
    }
    variant
}

/// The columns and rows of what is not background; `None` where all is.
fn shape(picture: &RgbImage) -> (Option<RangeInclusive<u32>>, Option<RangeInclusive<u32>>) {
    let background = background(picture);
    let (mut columns, mut rows) = (None, None);
    for (x, y, _) in picture.enumerate_pixels().filter(|(.., pixel)| Some(pixel.0) != background) {
        extend(&mut columns, x);
        extend(&mut rows, y);
    }
    (columns, rows)
}

fn extend(range: &mut Option<RangeInclusive<u32>>, with: u32) {
    *range = Some(match range {
        None => with..=with,
        Some(range) => with.min(*range.start())..=with.max(*range.end()),
    });
}

/// The border's most frequent colour.
fn background(picture: &RgbImage) -> Option<[u8; 3]> {
    let (width, height) = picture.dimensions();
    let mut counts: BTreeMap<[u8; 3], usize> = BTreeMap::new();
    for (x, y, pixel) in picture.enumerate_pixels() {
        if x == 0 || y == 0 || x + 1 == width || y + 1 == height {
            *counts.entry(pixel.0).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|&(_, count)| count).map(|(colour, _)| colour)
}

/// How far to shift along an axis of `size` pixels on which the shape covers `range`.
fn shift(range: Option<RangeInclusive<u32>>, size: u32, draws: &mut Draws) -> i64 {
    let Some(range) = range else { return 0 };
    let (before, after) = (*range.start(), size - 1 - range.end());
    if before == 0 || after == 0 {
        return 0;
    }
    draws.below((before + after + 1) as usize) as i64 - i64::from(before)
}

/// The place along an axis whose pixel comes to `place`.
fn source(place: u32, shift: i64, size: u32) -> u32 {
    (i64::from(place) - shift).clamp(0, i64::from(size) - 1) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    const BACKGROUND: Rgb<u8> = Rgb([240, 238, 235]);

    /// A shape of pixels that are all different, on one colour.
    fn picture(size: (u32, u32), columns: RangeInclusive<u32>, rows: RangeInclusive<u32>) -> RgbImage {
        RgbImage::from_fn(size.0, size.1, |x, y| match columns.contains(&x) && rows.contains(&y) {
            true => Rgb([x as u8, y as u8, 7]),
            false => BACKGROUND,
        })
    }

    fn cut(picture: &RgbImage) -> RgbImage {
        let (columns, rows) = shape(picture);
        let (columns, rows) = (columns.unwrap(), rows.unwrap());
        let size = (columns.end() - columns.start() + 1, rows.end() - rows.start() + 1);
        imageops::crop_imm(picture, *columns.start(), *rows.start(), size.0, size.1).to_image()
    }

    #[test]
    fn names_number_the_copies() {
        assert_eq!([0, 1, 63].map(|copy| variant_name(12, copy)), ["12", "12-c1", "12-c63"]);
    }

    #[test]
    fn a_shape_comes_everywhere() {
        let picture = picture((6, 5), 1..=3, 1..=2);
        let mut seen = HashSet::new();
        for copy in 1..500 {
            let variant = variant(&picture, &mut Draws::for_copy(0, copy));
            let (columns, rows) = shape(&variant);
            let mirrored = cut(&variant) != cut(&picture);
            seen.insert((*columns.unwrap().start(), *rows.unwrap().start(), mirrored));
        }
        assert_eq!(seen.len(), 4 * 4 * 2);
    }

    #[test]
    fn a_shape_at_a_border_keeps_that_coordinate() {
        let picture = picture((6, 6), 0..=2, 2..=3);
        let mut rows_seen = HashSet::new();
        for copy in 1..100 {
            let variant = variant(&picture, &mut Draws::for_copy(0, copy));
            let (columns, rows) = shape(&variant);
            let mirrored = cut(&variant) != cut(&picture);
            assert_eq!(columns.unwrap(), if mirrored { 3..=5 } else { 0..=2 });
            rows_seen.insert(*rows.unwrap().start());
        }
        assert_eq!(rows_seen.len(), 5);
    }

    #[test]
    fn a_picture_without_a_shape_stays_as_it_is() {
        let plain = RgbImage::from_pixel(4, 3, BACKGROUND);
        assert_eq!(shape(&plain), (None, None));
        assert_eq!(variant(&plain, &mut Draws::for_copy(0, 1)), plain);
    }

    proptest! {
        #[test]
        fn the_shape_stays_whole(
            (width, left, right) in (1u32..20).prop_flat_map(|n| (Just(n), 0..n, 0..n)),
            (height, top, bottom) in (1u32..20).prop_flat_map(|n| (Just(n), 0..n, 0..n)),
            number: u64,
        ) {
            let columns = left.min(right)..=left.max(right);
            let rows = top.min(bottom)..=top.max(bottom);
            let picture = picture((width, height), columns, rows);
            // Where the shape leaves nothing of the border, it cannot be told from the background.
            prop_assume!(background(&picture) == Some(BACKGROUND.0));
            let variant = variant(&picture, &mut Draws::for_copy(number, 1));
            prop_assert_eq!(variant.dimensions(), picture.dimensions());
            let pixels = |picture: &RgbImage| {
                let mut pixels: Vec<_> = picture.pixels().map(|pixel| pixel.0).collect();
                pixels.sort_unstable();
                pixels
            };
            prop_assert_eq!(pixels(&variant), pixels(&picture));
            let (whole, mirrored) = (cut(&picture), imageops::flip_horizontal(&cut(&picture)));
            prop_assert!(cut(&variant) == whole || cut(&variant) == mirrored);
        }
    }
}
