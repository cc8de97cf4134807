//! JPEG, bit for bit as libjpeg-turbo (and so Pillow) decodes it.
//!
//! `libjpeg-turbo-rs` follows libjpeg's inverse DCT, chroma upsampling and colour conversion exactly. The
//! `image` crate's own decoder differs by up to four grey levels in some 15 % of the values of an ordinary
//! 4:2:0 photograph. Pictures of four components are stretched and converted here, since the crate does not
//! expect inks to be sampled unequally.

mod component;

use image::{RgbImage, metadata::Orientation};
use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, Image, JpegError, PixelFormat};

use super::{
    decode::{Source, orient},
    error::ImageError,
};
use component::Component;

pub(super) fn decode(source: &Source<'_>) -> Result<RgbImage, ImageError> {
    let options = source.options;
    let decoder = open(source, source.bytes)?;
    let header = decoder.header();
    let (width, height) = (u32::from(header.width), u32::from(header.height));

    let orientation = match decoder.exif_orientation() {
        Some(value) if options.apply_exif => {
            Orientation::from_exif(value).unwrap_or(Orientation::NoTransforms)
        }
        _ => Orientation::NoTransforms,
    };
    let data = match decoder.jpeg_color_space() {
        ColorSpace::Cmyk | ColorSpace::Ycck => inks(source, decoder)?,
        _ => {
            let picture = decoder.decode_image().map_err(|error| convert(source, error))?;
            to_rgb(picture).ok_or_else(|| source.unsupported("this arrangement of colours"))?
        }
    };
    Ok(orient(source.rgb(width, height, data)?, orientation))
}

/// Reads the header of `bytes`, which stand for the source or a part of it.
pub(super) fn open<'a>(source: &Source<'_>, bytes: &'a [u8]) -> Result<Decoder<'a>, ImageError> {
    let limits = DecodeLimits { max_memory: Some(source.options.max_alloc), ..DecodeLimits::default() };
    let decoder = Decoder::new_with_limits(bytes, limits).map_err(|error| convert(source, error))?;
    source.check_size(decoder.header().width, decoder.header().height)?;
    Ok(decoder)
}

fn to_rgb(picture: Image) -> Option<Vec<u8>> {
    match picture.pixel_format {
        PixelFormat::Rgb => Some(picture.data),
        PixelFormat::Grayscale => Some(picture.data.into_iter().flat_map(|grey| [grey; 3]).collect()),
        _ => None,
    }
}

/// A picture of four inks, as RGB.
fn inks(source: &Source<'_>, decoder: Decoder<'_>) -> Result<Vec<u8>, ImageError> {
    let luma = decoder.jpeg_color_space() == ColorSpace::Ycck;
    let samples = unconverted(source, decoder)?;
    // Pillow takes every CMYK JPEG for one of inverted inks, as Adobe writes them, marker or not. YCCK's conversion
    // inverts as well.
    let colour = |pixel: &[u8]| {
        let coded = [pixel[0], pixel[1], pixel[2]];
        let [cyan, magenta, yellow] = if luma { ycc_to_rgb(coded) } else { coded.map(|value| 255 - value) };
        cmyk_to_rgb([cyan, magenta, yellow, 255 - pixel[3]])
    };
    Ok(samples.chunks_exact(4).flat_map(colour).collect())
}

/// The components as they are coded, pixel by pixel: stretched to the picture's size, colours not converted.
pub(super) fn unconverted(source: &Source<'_>, decoder: Decoder<'_>) -> Result<Vec<u8>, ImageError> {
    let header = decoder.header().clone();
    if header.is_lossless {
        return Err(source.unsupported("lossless coding of such colours"));
    }
    let raw = decoder.decode_raw().map_err(|error| convert(source, error))?;
    let components = Component::all(&header, raw)
        .ok_or_else(|| source.unsupported("sampling factors that do not divide one another"))?;
    let (width, height) = (usize::from(header.width), usize::from(header.height));
    let mut row = vec![0; width];
    let mut samples = vec![0; width * height * components.len()];
    for (y, pixels) in samples.chunks_exact_mut(width * components.len()).enumerate() {
        for (index, component) in components.iter().enumerate() {
            component.row(y, &mut row);
            let places = pixels.iter_mut().skip(index).step_by(components.len());
            places.zip(&row).for_each(|(place, &value)| *place = value);
        }
    }
    Ok(samples)
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

/// JFIF's colour conversion in libjpeg's fixed point of 16 bits (`jdcolor.c`).
pub(super) fn ycc_to_rgb([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    // 1.402, 0.344_14, 0.714_14 and 1.772.
    let chroma = [91_881 * red, -22_554 * blue - 46_802 * red, 116_130 * blue];
    chroma.map(|value| (luma + ((value + HALF) >> 16)).clamp(0, 255) as u8)
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
