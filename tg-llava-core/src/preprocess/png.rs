//! PNG, through the `png` crate itself: the `image` crate unpacks colour profiles before any limit can be set, and
//! a profile of a few megabytes can grow to gigabytes.

use std::io::Cursor;

use image::{RgbImage, metadata::Orientation};
use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::{
    decode::{Source, grey16_to_8, orient},
    error::ImageError,
};

pub(super) fn decode(source: &Source<'_>) -> Result<RgbImage, ImageError> {
    let failed = |error| convert(source, error);
    let limit = usize::try_from(source.options.max_alloc).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new_with_limits(Cursor::new(source.bytes), Limits { bytes: limit });
    // Pillow does not look at them either when it converts to RGB.
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_ignore_text_chunk(true);
    let header = decoder.read_header_info().map_err(failed)?;
    let (width, height) = header.size();
    source.check_size(width, height)?;
    // Palettes and less than eight bits become plain colours; 16 bits stay.
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(failed)?;
    let length = reader.output_buffer_size().filter(|&length| length <= limit);
    let mut data = vec![0; length.ok_or_else(|| source.too_much_memory())?];
    reader.next_frame(&mut data).map_err(failed)?;

    let (colours, depth) = reader.output_color_type();
    let grey16 = reader.info().color_type == ColorType::Grayscale && depth == BitDepth::Sixteen;
    // Big-endian, so that the upper byte of a sample comes first.
    let bytes = if depth == BitDepth::Sixteen { 2 } else { 1 };
    let pixels = data.chunks_exact(colours.samples() * bytes);
    let rgb = match colours {
        ColorType::Grayscale | ColorType::GrayscaleAlpha if grey16 => {
            let rule = source.options.sixteen_bit_grey;
            pixels
                .flat_map(|pixel| [grey16_to_8(u16::from_be_bytes([pixel[0], pixel[1]]), rule); 3])
                .collect()
        }
        ColorType::Grayscale | ColorType::GrayscaleAlpha => pixels.flat_map(|pixel| [pixel[0]; 3]).collect(),
        ColorType::Rgb if bytes == 1 => data,
        ColorType::Rgb | ColorType::Rgba => {
            pixels.flat_map(|pixel| [pixel[0], pixel[bytes], pixel[2 * bytes]]).collect()
        }
        ColorType::Indexed => return Err(source.unsupported("a palette that was not looked up")),
    };
    let turn = match &reader.info().exif_metadata {
        Some(chunk) if source.options.apply_exif => Orientation::from_exif_chunk(chunk),
        _ => None,
    };
    Ok(orient(source.rgb(width, height, rgb)?, turn.unwrap_or(Orientation::NoTransforms)))
}

fn convert(source: &Source<'_>, error: DecodingError) -> ImageError {
    match error {
        DecodingError::LimitsExceeded => source.too_much_memory(),
        other => source.corrupt(other.to_string()),
    }
}
