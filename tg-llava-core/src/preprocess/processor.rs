//! From RGB to normalised pixels: Hugging Face's CLIP and SigLIP processors, and LLaVA's handling of the
//! aspect ratio.

use std::path::Path;

use image::RgbImage;

use super::{
    crops::{DetailSource, Pixels, quadrant_crops, upsample_2x},
    geometry::{Size, Window, expand_to_square, resize_shortest},
    processor_config,
    resize::{Canvas, Filter, resize_window},
};
use crate::error::Result;

/// What is done about pictures that are not square (`image_aspect_ratio`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AspectRatio {
    /// Nothing beyond the processor's own resize and crop; what lies outside the middle square is lost.
    #[default]
    Square,
    /// The picture is first laid on a square of the mean colour, so that all of it stays.
    Pad,
}

impl AspectRatio {
    /// From the value in a checkpoint's config.json: `pad`, or anything else for no padding, as the reference
    /// reads it.
    pub fn from_hf(value: Option<&str>) -> Self {
        if value == Some("pad") { Self::Pad } else { Self::Square }
    }

    /// The value for config.json.
    pub fn hf_name(self) -> &'static str {
        match self {
            Self::Square => "square",
            Self::Pad => "pad",
        }
    }
}

/// How a picture is fitted before it is cropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// Not at all.
    Keep,
    /// The shorter side gets this length, the longer one in proportion.
    Shortest(usize),
    /// Both sides get this length, whatever the proportions.
    Stretch(usize),
}

/// Turns pictures into the vision tower's input, as a `preprocessor_config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    pub(super) fit: Fit,
    /// Side of the square cut from the middle.
    pub(super) crop: Option<usize>,
    pub(super) filter: Filter,
    /// What a value of 0..=255 is multiplied with.
    pub(super) rescale: f64,
    /// Mean and standard deviation of each channel, after rescaling.
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
}

/// What the model takes for one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedImage {
    /// Side in pixels.
    pub size: usize,
    /// `[3, size, size]`.
    pub pixels: Vec<f32>,
    /// `[4, 3, size, size]`: top left, top right, bottom left, bottom right.
    pub crops: Vec<f32>,
}

impl PreparedImage {
    /// What the reference gives a sample without a picture: zeros after normalisation.
    pub fn zeros(size: usize) -> Self {
        Self { size, pixels: vec![0.0; 3 * size * size], crops: vec![0.0; 4 * 3 * size * size] }
    }
}

impl ImageProcessor {
    /// CLIP: shortest side to `image_size`, bicubic, middle square, OpenAI's mean and standard deviation.
    pub fn clip(image_size: usize) -> Self {
        Self {
            fit: Fit::Shortest(image_size),
            crop: Some(image_size),
            filter: Filter::Bicubic,
            rescale: 1.0 / 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
        }
    }

    /// SigLIP: both sides to `image_size`, bicubic, values from -1 to 1.
    pub fn siglip(image_size: usize) -> Self {
        Self {
            fit: Fit::Stretch(image_size),
            crop: None,
            filter: Filter::Bicubic,
            rescale: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }

    /// Reads a `preprocessor_config.json`, of the present or of the older form (sizes as plain numbers).
    ///
    /// # Errors
    /// [`Error::Io`](crate::error::Error::Io) or [`Error::Json`](crate::error::Error::Json) where the file
    /// cannot be read, [`Error::Config`](crate::error::Error::Config) where it asks for what this processor
    /// does not do.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        processor_config::read(path.as_ref())
    }

    /// The same with other `mean` and `std` of the three channels, in units of the rescaled values.
    pub fn with_normalization(self, mean: [f64; 3], std: [f64; 3]) -> Self {
        Self { mean, std, ..self }
    }

    /// Side in pixels of what comes out.
    pub fn image_size(&self) -> usize {
        match (self.crop, self.fit) {
            (Some(side), _) | (None, Fit::Stretch(side) | Fit::Shortest(side)) => side,
            (None, Fit::Keep) => unreachable!("no constructor leaves the size open"),
        }
    }

    /// The model's input for one picture.
    pub fn prepare(&self, picture: &RgbImage, aspect: AspectRatio, detail: DetailSource) -> PreparedImage {
        let pixels = self.normalize(&self.fit_picture(picture, aspect));
        let large = match detail {
            DetailSource::Upsampled => upsample_2x(&pixels),
            DetailSource::Native => self.normalize(&self.doubled().fit_picture(picture, aspect)),
        };
        PreparedImage { size: pixels.width, pixels: pixels.data, crops: quadrant_crops(&large) }
    }

    /// The picture resized and cropped, before rescaling and normalisation.
    pub fn fit_picture(&self, picture: &RgbImage, aspect: AspectRatio) -> RgbImage {
        let canvas = match aspect {
            AspectRatio::Square => Canvas::plain(picture),
            AspectRatio::Pad => {
                let (square, offset) = expand_to_square(Size::of(picture));
                Canvas::padded(picture, square, offset, self.mean.map(|mean| (mean * 255.0) as u8))
            }
        };
        let size = match self.fit {
            Fit::Keep => canvas.size(),
            Fit::Shortest(side) => resize_shortest(canvas.size(), side),
            Fit::Stretch(side) => Size::square(side),
        };
        let window = match self.crop {
            Some(side) => Window::centred(size, Size::square(side)),
            None => Window::whole(size),
        };
        resize_window(&canvas, size, window, self.filter)
    }

    /// Rescaled and normalised.
    pub fn normalize(&self, picture: &RgbImage) -> Pixels {
        let planes = (0..3).flat_map(|channel| {
            let table = self.table(channel);
            picture.as_raw().iter().skip(channel).step_by(3).map(move |&value| table[usize::from(value)])
        });
        Pixels { data: planes.collect(), height: picture.height() as usize, width: picture.width() as usize }
    }

    /// Every value of a channel. Rescaling is done in f64 and rounded, the rest in f32, as NumPy does it
    /// there.
    fn table(&self, channel: usize) -> [f32; 256] {
        let (mean, std) = (self.mean[channel] as f32, self.std[channel] as f32);
        std::array::from_fn(|value| ((value as f64 * self.rescale) as f32 - mean) / std)
    }

    /// The same at twice the resolution.
    fn doubled(&self) -> Self {
        let fit = match self.fit {
            Fit::Keep => Fit::Keep,
            Fit::Shortest(side) => Fit::Shortest(2 * side),
            Fit::Stretch(side) => Fit::Stretch(2 * side),
        };
        Self { fit, crop: self.crop.map(|side| 2 * side), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn padding_is_the_mean_colour() {
        let picture = RgbImage::from_pixel(8, 2, Rgb([255, 0, 9]));
        let fitted = ImageProcessor::clip(8).fit_picture(&picture, AspectRatio::Pad);
        assert_eq!(fitted.get_pixel(0, 0), &Rgb([122, 116, 104]));
        assert_eq!(fitted.get_pixel(7, 3), &Rgb([255, 0, 9]));
        assert_eq!(fitted.get_pixel(7, 5), &Rgb([122, 116, 104]));
    }

    /// The square around such a strip has 40,000 million pixels.
    #[test]
    fn an_extreme_strip_costs_no_more_than_its_pixels() {
        for (width, height) in [(200_000, 1), (1, 200_000)] {
            let strip = RgbImage::from_pixel(width, height, Rgb([255, 0, 9]));
            for processor in [ImageProcessor::clip(8), ImageProcessor::siglip(8)] {
                let ground = processor.mean.map(|mean| (mean * 255.0) as u8);
                let fitted = processor.fit_picture(&strip, AspectRatio::Pad);
                assert!(fitted.pixels().all(|pixel| pixel.0 == ground), "{width}x{height}");
            }
        }
    }

    #[test]
    fn native_crops_show_what_enlarging_cannot() {
        let checks = RgbImage::from_fn(16, 16, |x, y| Rgb([((x + y) % 2 * 255) as u8; 3]));
        let processor = ImageProcessor::clip(8);
        let contrast = |detail| {
            let crops = processor.prepare(&checks, AspectRatio::Square, detail).crops;
            crops.windows(2).map(|pair| (pair[0] - pair[1]).abs()).fold(0.0, f32::max)
        };
        assert!(contrast(DetailSource::Native) > 3.0);
        assert!(contrast(DetailSource::Upsampled) < 1.0);
    }

    #[test]
    fn a_missing_picture_is_zero_everywhere() {
        let zeros = PreparedImage::zeros(4);
        assert_eq!((zeros.pixels.len(), zeros.crops.len()), (48, 192));
        assert!(zeros.pixels.iter().chain(&zeros.crops).all(|&value| value == 0.0));
    }

    #[test]
    fn siglip_values_span_minus_one_to_one() {
        let picture = RgbImage::from_fn(6, 9, |_, y| Rgb([if y < 5 { 0 } else { 255 }; 3]));
        let prepared =
            ImageProcessor::siglip(6).prepare(&picture, AspectRatio::Square, DetailSource::Upsampled);
        assert_eq!((prepared.size, prepared.pixels[0], prepared.pixels[35]), (6, -1.0, 1.0));
    }

    proptest! {
        #[test]
        fn any_picture_fits(
            width in 1_u32..60, height in 1_u32..60, side in 1_usize..24, pad: bool, native: bool,
        ) {
            let picture = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7]));
            let aspect = if pad { AspectRatio::Pad } else { AspectRatio::Square };
            let detail = if native { DetailSource::Native } else { DetailSource::Upsampled };
            for processor in [ImageProcessor::clip(side), ImageProcessor::siglip(side)] {
                let prepared = processor.prepare(&picture, aspect, detail);
                prop_assert_eq!(prepared.size, side);
                prop_assert_eq!(prepared.pixels.len(), 3 * side * side);
                prop_assert_eq!(prepared.crops.len(), 12 * side * side);
            }
        }
    }
}
