//! JPEG, bit for bit as libjpeg-turbo (and so Pillow) decodes it.
//!
//! `libjpeg-turbo-rs` follows libjpeg's inverse DCT, chroma upsampling and colour conversion exactly. The
//! `image` crate's own decoder differs by up to four grey levels in some 15 % of the values of an ordinary
//! 4:2:0 photograph.

use image::{RgbImage, metadata::Orientation};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, Image, JpegError, PixelFormat};

use super::{
    decode::{Source, orient},
    error::ImageError,
};

pub(super) fn decode(source: &Source<'_>) -> Result<RgbImage, ImageError> {
    let options = source.options;
    let limits = DecodeLimits { max_memory: Some(options.max_alloc), ..DecodeLimits::default() };
    let decoder = Decoder::new_with_limits(source.bytes, limits).map_err(|error| convert(source, error))?;
    let header = decoder.header();
    source.check_size(header.width, header.height)?;

    let orientation = match decoder.exif_orientation() {
        Some(value) if options.apply_exif => {
            Orientation::from_exif(value).unwrap_or(Orientation::NoTransforms)
        }
        _ => Orientation::NoTransforms,
    };
    let picture = decoder.decode_image().map_err(|error| convert(source, error))?;
    let (width, height) = (dimension(picture.width), dimension(picture.height));
    let data = to_rgb(picture).ok_or_else(|| source.unsupported("this arrangement of colours"))?;
    Ok(orient(source.rgb(width, height, data)?, orientation))
}

fn to_rgb(picture: Image) -> Option<Vec<u8>> {
    match picture.pixel_format {
        PixelFormat::Rgb => Some(picture.data),
        PixelFormat::Grayscale => Some(picture.data.into_iter().flat_map(|grey| [grey; 3]).collect()),
        // Pillow takes every CMYK JPEG for an inverted one, as Adobe writes them, marker or not.
        PixelFormat::Cmyk => Some(
            picture
                .data
                .chunks_exact(4)
                .flat_map(|cmyk| cmyk_to_rgb([255 - cmyk[0], 255 - cmyk[1], 255 - cmyk[2], 255 - cmyk[3]]))
                .collect(),
        ),
        _ => None,
    }
}

/// Ink to light as Pillow computes it: `(255 - k) - ink * (255 - k) / 255`, in rounded integers.
pub(super) fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = u32::from(255 - k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * light + 128;
        // The product over 255, rounded; it never exceeds `light`.
        (light - (((product >> 8) + product) >> 8)) as u8
    })
}

fn dimension(value: usize) -> u32 {
    u32::try_from(value).expect("a JPEG header holds 16 bits for a side")
}

fn convert(source: &Source<'_>, error: JpegError) -> ImageError {
    match error {
        JpegError::LimitExceeded { .. } | JpegError::AllocationFailed { .. } => source.too_much_memory(),
        JpegError::Unsupported(detail) => source.unsupported(detail),
        other => source.corrupt(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_becomes_light() {
        assert_eq!(cmyk_to_rgb([0, 0, 0, 0]), [255; 3]);
        assert_eq!(cmyk_to_rgb([255, 0, 128, 0]), [0, 255, 127]);
        assert_eq!(cmyk_to_rgb([10, 20, 30, 255]), [0; 3]);
        assert_eq!(cmyk_to_rgb([100, 100, 100, 55]), [122; 3]);
    }
}
