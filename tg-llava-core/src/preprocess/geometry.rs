//! Sizes and offsets of what becomes of a picture. Numbers only.

use image::RgbImage;

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Pixels from left to right.
    pub width: usize,
    /// Pixels from top to bottom.
    pub height: usize,
}

impl Size {
    /// A square.
    pub fn square(side: usize) -> Self {
        Self { width: side, height: side }
    }

    /// The size of `picture`.
    pub fn of(picture: &RgbImage) -> Self {
        Self { width: picture.width() as usize, height: picture.height() as usize }
    }
}

/// A rectangle that may reach beyond what it is cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First column; negative where the window begins left of the picture.
    pub left: i64,
    /// First row; negative where the window begins above the picture.
    pub top: i64,
    /// Size of the window in pixels.
    pub size: Size,
}

impl Window {
    /// All of a picture of `size`.
    pub fn whole(size: Size) -> Self {
        Self { left: 0, top: 0, size }
    }

    /// The middle of a picture of `size`; where an odd number of pixels is over, the fewer are cut off at the
    /// left and top, and the more are added there (Hugging Face's `center_crop`).
    pub fn centred(size: Size, window: Size) -> Self {
        let start = |length: usize, wanted: usize| (length as i64 - wanted as i64).div_euclid(2);
        Self { left: start(size.width, window.width), top: start(size.height, window.height), size: window }
    }
}

/// The size whose shorter side is `shortest`, the longer in proportion and rounded down (Hugging Face's
/// `get_resize_output_image_size`).
///
/// # Panics
/// Where `size` has no pixels.
pub fn resize_shortest(size: Size, shortest: usize) -> Size {
    let long = |long: usize, short: usize| {
        let long = shortest as u128 * long as u128 / short as u128;
        usize::try_from(long).unwrap_or(usize::MAX)
    };
    if size.width <= size.height {
        Size { width: shortest, height: long(size.height, size.width) }
    } else {
        Size { width: long(size.width, size.height), height: shortest }
    }
}

/// The square around a picture of `size`, and the column and row at which the picture begins in it (LLaVA's
/// `expand2square`).
pub fn expand_to_square(size: Size) -> (Size, (usize, usize)) {
    let side = size.width.max(size.height);
    (Size::square(side), ((side - size.width) / 2, (side - size.height) / 2))
}

/// Column and row at which the four quadrants of a square of twice `side` begin: top left, top right, bottom
/// left, bottom right.
pub fn quadrants(side: usize) -> [(usize, usize); 4] {
    [(0, 0), (side, 0), (0, side), (side, side)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longer_side_is_rounded_down() {
        assert_eq!(resize_shortest(Size { width: 220, height: 147 }, 56), Size { width: 83, height: 56 });
        assert_eq!(resize_shortest(Size { width: 1, height: 37 }, 336), Size { width: 336, height: 12_432 });
        assert_eq!(resize_shortest(Size::square(5), 336), Size::square(336));
    }

    #[test]
    fn the_window_of_a_small_picture_begins_before_it() {
        let window = Window::centred(Size { width: 5, height: 9 }, Size::square(8));
        assert_eq!((window.left, window.top), (-2, 0));
        let window = Window::centred(Size { width: 11, height: 8 }, Size::square(8));
        assert_eq!((window.left, window.top), (1, 0));
    }

    #[test]
    fn a_strip_lies_in_the_middle_of_its_square() {
        assert_eq!(expand_to_square(Size { width: 37, height: 1 }), (Size::square(37), (0, 18)));
        assert_eq!(expand_to_square(Size { width: 1, height: 4 }), (Size::square(4), (1, 0)));
        assert_eq!(expand_to_square(Size::square(3)), (Size::square(3), (0, 0)));
    }

    fn sizes() -> impl Strategy<Value = Size> {
        (1_usize..5000, 1_usize..5000).prop_map(|(width, height)| Size { width, height })
    }

    proptest! {
        #[test]
        fn resizing_keeps_the_shortest_side_and_the_proportion(size in sizes(), shortest in 1_usize..800) {
            let result = resize_shortest(size, shortest);
            prop_assert_eq!(result.width.min(result.height), shortest);
            let (long, short) = (size.width.max(size.height), size.width.min(size.height));
            let exact = shortest as f64 * long as f64 / short as f64;
            let longest = result.width.max(result.height) as f64;
            prop_assert!(longest <= exact + 1e-6 && longest > exact - 1.0);
            let short_side = if size.width <= size.height { result.width } else { result.height };
            prop_assert_eq!(short_side, shortest);
        }

        #[test]
        fn resizing_is_python_s_float_division(size in sizes(), shortest in 1_usize..800) {
            let (long, short) = (size.width.max(size.height), size.width.min(size.height));
            let python = (shortest as f64 * long as f64 / short as f64) as usize;
            let result = resize_shortest(size, shortest);
            prop_assert_eq!(result.width.max(result.height), python);
        }

        #[test]
        fn a_centred_window_leaves_as_much_on_either_side(size in sizes(), window in sizes()) {
            let centred = Window::centred(size, window);
            for (start, length, wanted) in
                [(centred.left, size.width, window.width), (centred.top, size.height, window.height)]
            {
                let behind = length as i64 - (start + wanted as i64);
                prop_assert!(behind == start || behind == start + 1);
            }
        }

        #[test]
        fn a_square_holds_its_picture(size in sizes()) {
            let (square, (left, top)) = expand_to_square(size);
            prop_assert!(left == 0 || top == 0);
            prop_assert!(left + size.width <= square.width && top + size.height <= square.height);
            prop_assert!(square.width == size.width || square.height == size.height);
            let right = square.width - size.width - left;
            let bottom = square.height - size.height - top;
            prop_assert!(right - left <= 1 && bottom - top <= 1);
        }

        #[test]
        fn quadrants_tile_the_square(side in 1_usize..40) {
            let mut covered = vec![0; 4 * side * side];
            for (left, top) in quadrants(side) {
                for y in top..top + side {
                    for x in left..left + side {
                        covered[y * 2 * side + x] += 1;
                    }
                }
            }
            prop_assert!(covered.iter().all(|&times| times == 1));
        }
    }
}
