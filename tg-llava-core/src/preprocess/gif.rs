//! GIF: the first frame on its canvas, as Pillow shows it.
//!
//! Read through the `gif` crate itself, since the colour outside a frame that is smaller than its canvas is
//! an entry of the palette, which the `image` crate does not hand out.

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};
use image::RgbImage;

use super::{decode::Source, error::ImageError};

pub(super) fn decode(source: &Source<'_>) -> Result<RgbImage, ImageError> {
    let failed = |error: DecodingError| convert(source, &error);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Bytes(
        source.options.max_alloc.try_into().map_err(|_| source.corrupt("`max_alloc` is zero"))?,
    ));
    let mut decoder = options.read_info(source.bytes).map_err(failed)?;
    source.check_size(decoder.width(), decoder.height())?;

    let Some(frame) = decoder.next_frame_info().map_err(failed)? else {
        return Err(source.corrupt("no frame"));
    };
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (frame_width, frame_height) = (u32::from(frame.width), u32::from(frame.height));
    let transparent = frame.transparent;
    // A frame may reach beyond the canvas that the header announces; then the canvas grows.
    let width = u32::from(decoder.width()).max(left + frame_width);
    let height = u32::from(decoder.height()).max(top + frame_height);
    source.check_size(width, height)?;

    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(failed)?;
    let palette = decoder.palette().unwrap_or_default();
    let colour = |index: u8| {
        palette.chunks_exact(3).nth(index.into()).map_or([index; 3], |rgb| [rgb[0], rgb[1], rgb[2]])
    };
    let colours: Vec<_> = (0..=u8::MAX).map(colour).collect();

    let mut picture =
        RgbImage::from_pixel(width, height, image::Rgb(colours[usize::from(transparent.unwrap_or(0))]));
    for (position, &index) in (0_u32..).zip(&indices) {
        let (x, y) = (position % frame_width, position / frame_width);
        picture.put_pixel(left + x, top + y, image::Rgb(colours[usize::from(index)]));
    }
    Ok(picture)
}

fn convert(source: &Source<'_>, error: &DecodingError) -> ImageError {
    match error {
        DecodingError::MemoryLimit | DecodingError::OutOfMemory => source.too_much_memory(),
        other => source.corrupt(other.to_string()),
    }
}
