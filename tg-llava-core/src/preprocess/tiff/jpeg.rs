//! TIFF with JPEG inside: every strip or tile is a JPEG of its own.
//!
//! Decoded as all JPEG is here, since the decoder behind the `tiff` crate differs from libjpeg.

use image::RgbImage;
use tiff::{
    decoder::{ChunkType, ifd::Value},
    tags::Tag,
};

use super::{
    super::{
        decode::Source,
        error::ImageError,
        jpeg::{cmyk_to_rgb, open, unconverted, ycc_to_rgb},
    },
    PLANAR, TiffReader, colours, convert, finish,
};

pub(super) fn decode(source: &Source<'_>, mut reader: TiffReader<'_>) -> Result<RgbImage, ImageError> {
    let failed = |error| convert(source, error);
    let photometric = reader.get_tag_unsigned::<u16>(Tag::PhotometricInterpretation).map_err(failed)?;
    let count = reader.find_tag_unsigned::<u16>(Tag::SamplesPerPixel).map_err(failed)?.unwrap_or(1);
    if reader.find_tag_unsigned(Tag::PlanarConfiguration).map_err(failed)? == Some(PLANAR) {
        return Err(source.unsupported("JPEG compression of one colour at a time"));
    }
    let rgb: fn(&[u8]) -> [u8; 3] = match (photometric, count) {
        (colours::WHITE_IS_ZERO, 1) => |pixel| [255 - pixel[0]; 3],
        (colours::BLACK_IS_ZERO, 1 | 2) => |pixel| [pixel[0]; 3],
        (colours::RGB, 3 | 4) => |pixel| [pixel[0], pixel[1], pixel[2]],
        (colours::CMYK, 4) => |pixel| cmyk_to_rgb([pixel[0], pixel[1], pixel[2], pixel[3]]),
        (colours::YCBCR, 3) => |pixel| ycc_to_rgb([pixel[0], pixel[1], pixel[2]]),
        _ => {
            let detail = format!("JPEG compression of {count} samples of colour model {photometric}");
            return Err(source.unsupported(detail));
        }
    };
    let samples = read(source, &mut reader, count.into())?;
    let data = samples.chunks_exact(count.into()).flat_map(rgb).collect();
    finish(source, &mut reader, data)
}

/// All samples of the picture, `count` a pixel.
fn read(source: &Source<'_>, reader: &mut TiffReader<'_>, count: usize) -> Result<Vec<u8>, ImageError> {
    let failed = |error| convert(source, error);
    let (offsets, lengths) = match reader.get_chunk_type() {
        ChunkType::Strip => (Tag::StripOffsets, Tag::StripByteCounts),
        ChunkType::Tile => (Tag::TileOffsets, Tag::TileByteCounts),
    };
    let offsets = reader.get_tag_u64_vec(offsets).map_err(failed)?;
    let lengths = reader.get_tag_u64_vec(lengths).map_err(failed)?;
    let tables = reader.find_tag(Tag::JPEGTables).map_err(failed)?;
    let tables = tables.map(Value::into_u8_vec).transpose().map_err(failed)?.unwrap_or_default();
    let (width, height) = reader.dimensions().map_err(failed)?;
    let (width, height) = (width as usize, height as usize);
    if (width * height).saturating_mul(count) as u64 > source.options.max_alloc {
        return Err(source.too_much_memory());
    }
    let (part_width, part_height) = reader.chunk_dimensions();
    let (part_width, part_height) = (part_width as usize, part_height as usize);
    if part_width == 0 || part_height == 0 {
        return Err(source.corrupt("strips or tiles without pixels"));
    }
    let across = width.div_ceil(part_width);
    let parts = across * height.div_ceil(part_height);
    if offsets.len() < parts || lengths.len() < parts {
        return Err(source.corrupt("fewer strips or tiles than the picture needs"));
    }

    let mut samples = vec![0; width * height * count];
    for (index, (offset, length)) in offsets.into_iter().zip(lengths).take(parts).enumerate() {
        let (left, top) = (index % across * part_width, index / across * part_height);
        let bytes = part(source, offset, length)
            .ok_or_else(|| source.corrupt("a strip or tile lies outside of the file"))?;
        let jpeg = with_tables(&tables, bytes);
        let decoder = open(source, &jpeg)?;
        let header = decoder.header();
        let (own_width, own_height) = (usize::from(header.width), usize::from(header.height));
        let (columns, rows) = (part_width.min(width - left), part_height.min(height - top));
        let too_small = own_width < columns || own_height < rows;
        // The last strip may be longer than announced, as libtiff allows.
        let too_large = own_width > part_width || (own_height > part_height && index + 1 < parts);
        if header.components.len() != count || too_small || too_large {
            return Err(source.corrupt("a strip or tile of another size than the header announces"));
        }
        let own = unconverted(source, decoder)?;
        for (y, row) in own.chunks_exact(own_width * count).take(rows).enumerate() {
            let start = ((top + y) * width + left) * count;
            samples[start..start + columns * count].copy_from_slice(&row[..columns * count]);
        }
    }
    Ok(samples)
}

fn part<'a>(source: &Source<'a>, offset: u64, length: u64) -> Option<&'a [u8]> {
    let start = usize::try_from(offset).ok()?;
    source.bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// A JPEG whose tables are stored once for all: they begin and end as a picture does, and the picture begins so too.
fn with_tables(tables: &[u8], jpeg: &[u8]) -> Vec<u8> {
    /// Length of the marks of begin and end.
    const MARK: usize = 2;
    match tables.len().checked_sub(MARK) {
        Some(end) if end > 0 => [&tables[..end], jpeg.get(MARK..).unwrap_or_default()].concat(),
        _ => jpeg.to_vec(),
    }
}
