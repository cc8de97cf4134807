//! TIFF: the kinds of pixels that the `image` crate refuses or rounds in another way than Pillow.
//!
//! Palettes, grey with alpha, grey of 2, 4 or 32 bits, CMYK and JPEG inside are handled here, all others by the common
//! path.

mod jpeg;

use std::io::Cursor;

use image::{ImageFormat, RgbImage, metadata::Orientation};
use tiff::{
    ColorType, TiffError,
    decoder::{ChunkType, Decoder, DecodingResult, Limits},
    tags::{ByteOrder, Tag},
};

use super::{
    decode::{Source, decode_general, high_byte, orient},
    error::ImageError,
    jpeg::cmyk_to_rgb,
};

/// Values of the tag `PhotometricInterpretation`.
mod colours {
    pub const WHITE_IS_ZERO: u16 = 0;
    pub const BLACK_IS_ZERO: u16 = 1;
    pub const RGB: u16 = 2;
    pub const PALETTE: u16 = 3;
    pub const CMYK: u16 = 5;
    pub const YCBCR: u16 = 6;
}

/// Value of the tag `PlanarConfiguration` for one colour after the other.
const PLANAR: u16 = 2;

/// Values of the tag `Compression` that are read.
mod compression {
    pub const NONE: u16 = 1;
    pub const GROUP_4: u16 = 4;
    pub const LZW: u16 = 5;
    pub const JPEG: u16 = 7;
    pub const DEFLATE: [u16; 2] = [8, 32_946];
    pub const PACK_BITS: u16 = 32_773;
}

pub(super) fn decode(source: &Source<'_>) -> Result<RgbImage, ImageError> {
    let mut reader = open(source, source.bytes)?;
    let failed = |error| convert(source, error);
    let photometric = reader.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).map_err(failed)?;
    match reader.find_tag_unsigned::<u16>(Tag::Compression).map_err(failed)? {
        Some(compression::JPEG) => return jpeg::decode(source, reader),
        Some(number) if !is_read(number) => return Err(source.unsupported(compression_name(number))),
        _ => {}
    }
    if reader.get_chunk_type() == ChunkType::Tile
        && reader.find_tag_unsigned(Tag::PlanarConfiguration).map_err(failed)? == Some(PLANAR)
    {
        // The `tiff` crate fails where the last ones reach beyond the picture.
        return Err(source.unsupported("tiles that hold one colour each"));
    }
    let kind = match photometric {
        Some(colours::PALETTE) => return decode_palette(source, reader),
        Some(number) if number > colours::CMYK => return Err(source.unsupported(colours_name(number))),
        _ => reader.colortype().map_err(failed)?,
    };
    match kind {
        ColorType::Gray(2 | 4 | 32 | 64) | ColorType::CMYK(8) | ColorType::CMYKA(8) => {}
        ColorType::Multiband { num_samples: 2, bit_depth: 8 | 16 } => {}
        _ => return decode_general(source, ImageFormat::Tiff),
    }
    let samples = Samples::read(source, &mut reader)?;
    let data = match kind {
        ColorType::Gray(bits @ (2 | 4)) => {
            let scale = u8::MAX / ((1 << bits) - 1);
            samples.unpack(source, bits)?.into_iter().flat_map(|value| [value * scale; 3]).collect()
        }
        ColorType::CMYK(_) | ColorType::CMYKA(_) => samples
            .pixels::<4>(source)?
            .flat_map(|inks| cmyk_to_rgb(inks.map(|ink| ink.clamp(0.0, 255.0) as u8)))
            .collect(),
        ColorType::Multiband { bit_depth: 16, .. } => {
            samples.pixels::<1>(source)?.flat_map(|[grey]| [high_byte(grey as u16); 3]).collect()
        }
        // As Pillow does: clipped, fractions cut off.
        _ => samples.pixels::<1>(source)?.flat_map(|[grey]| [grey.clamp(0.0, 255.0) as u8; 3]).collect(),
    };
    finish(source, &mut reader, data)
}

fn is_read(number: u16) -> bool {
    use compression::{DEFLATE, GROUP_4, LZW, NONE, PACK_BITS};
    [NONE, GROUP_4, LZW, PACK_BITS].contains(&number) || DEFLATE.contains(&number)
}

fn compression_name(number: u16) -> String {
    let name = match number {
        2 => "CCITT Huffman",
        3 => "CCITT Group 3",
        6 => "old-style JPEG",
        32_809 => "ThunderScan",
        34_676 | 34_677 => "SGI LogLuv",
        34_712 => "JPEG 2000",
        34_887 => "LERC",
        34_925 => "LZMA",
        50_000 => "Zstandard",
        50_001 => "WebP",
        50_002 => "JPEG XL",
        _ => return format!("compression {number}"),
    };
    format!("{name} compression")
}

fn colours_name(number: u16) -> String {
    match number {
        colours::YCBCR => "YCbCr colours that are not compressed as JPEG".into(),
        8..=10 => "L*a*b* colours".into(),
        _ => format!("colour model {number}"),
    }
}

/// The `tiff` crate refuses palettes. The indices are laid out as grey is, so a copy that says grey gives
/// them.
fn decode_palette(source: &Source<'_>, mut reader: TiffReader<'_>) -> Result<RgbImage, ImageError> {
    let failed = |error| convert(source, error);
    let map = reader.get_tag_u16_vec(Tag::ColorMap).map_err(failed)?;
    let bits = reader.find_tag_unsigned_vec::<u8>(Tag::BitsPerSample).map_err(failed)?.unwrap_or(vec![1]);
    // More than one sample is an index and its alpha.
    let bits = match bits[..] {
        [bits @ (1 | 2 | 4 | 8)] | [bits @ 8, ..] => bits,
        _ => return Err(source.unsupported(format!("a palette of {bits:?}-bit indices"))),
    };
    let as_grey = relabel_as_grey(source, &mut reader)?;
    let mut reader = open(source, &as_grey)?;
    let samples = Samples::read(source, &mut reader)?;
    let indices = if bits == 8 {
        samples.pixels::<1>(source)?.map(|[index]| index as u8).collect()
    } else {
        samples.unpack(source, bits)?
    };
    let entries = map.len() / 3;
    let data = indices.into_iter().flat_map(|index| {
        [0, 1, 2].map(|channel| map.get(channel * entries + usize::from(index)).copied().map_or(0, high_byte))
    });
    finish(source, &mut reader, data.collect())
}

fn relabel_as_grey(source: &Source<'_>, reader: &mut TiffReader<'_>) -> Result<Vec<u8>, ImageError> {
    // A directory is a count, then entries of tag, type, count and value: counts of two and four bytes and a value of
    // four, or eight each in a BigTIFF.
    let big = source.bytes[2..4].contains(&b'+');
    let (counted, entry_bytes, value_at) = if big { (8, 20, 12) } else { (2, 12, 8) };
    let order = reader.byte_order();
    let number = |bytes: [u8; 2]| match order {
        ByteOrder::LittleEndian => u16::from_le_bytes(bytes),
        ByteOrder::BigEndian => u16::from_be_bytes(bytes),
    };
    let mut bytes = source.bytes.to_vec();
    let directory = reader.ifd_pointer().and_then(|pointer| usize::try_from(pointer.0).ok());
    let entry = directory.map(|start| start.saturating_add(counted)).and_then(|start| {
        let entries = bytes.get(start..)?.chunks_exact(entry_bytes);
        let wanted = |entry: &[u8]| number([entry[0], entry[1]]) == Tag::PhotometricInterpretation.to_u16();
        Some(start + entry_bytes * entries.into_iter().position(wanted)?)
    });
    let Some(entry) = entry else {
        return Err(source.corrupt("the directory names no PhotometricInterpretation"));
    };
    let value = match order {
        ByteOrder::LittleEndian => colours::BLACK_IS_ZERO.to_le_bytes(),
        ByteOrder::BigEndian => colours::BLACK_IS_ZERO.to_be_bytes(),
    };
    bytes[entry + value_at..entry + value_at + 2].copy_from_slice(&value);
    Ok(bytes)
}

type TiffReader<'a> = Decoder<Cursor<&'a [u8]>>;

fn open<'a>(source: &Source<'_>, bytes: &'a [u8]) -> Result<TiffReader<'a>, ImageError> {
    let failed = |error| convert(source, error);
    let mut reader = Decoder::new(Cursor::new(bytes)).map_err(failed)?;
    let (width, height) = reader.dimensions().map_err(failed)?;
    source.check_size(width, height)?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = source.options.max_alloc.try_into().unwrap_or(usize::MAX);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    Ok(reader.with_limits(limits))
}

fn finish(source: &Source<'_>, reader: &mut TiffReader<'_>, data: Vec<u8>) -> Result<RgbImage, ImageError> {
    let (width, height) = reader.dimensions().map_err(|error| convert(source, error))?;
    let turn =
        reader.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten().and_then(Orientation::from_exif);
    let picture = source.rgb(width, height, data)?;
    Ok(orient(picture, turn.unwrap_or(Orientation::NoTransforms)))
}

/// What the file holds, before any meaning is given to it.
struct Samples {
    width: u32,
    height: u32,
    planes: usize,
    values: DecodingResult,
}

impl Samples {
    fn read(source: &Source<'_>, reader: &mut TiffReader<'_>) -> Result<Self, ImageError> {
        let failed = |error| convert(source, error);
        let (width, height) = reader.dimensions().map_err(failed)?;
        let mut values = DecodingResult::U8(Vec::new());
        let layout = reader.read_image_to_buffer(&mut values).map_err(failed)?;
        if values.as_buffer(0).as_bytes().len() < layout.complete_len {
            return Err(source.too_much_memory());
        }
        Ok(Self { width, height, planes: layout.planes, values })
    }

    /// The first `N` samples of every pixel.
    fn pixels<const N: usize>(
        &self,
        source: &Source<'_>,
    ) -> Result<impl Iterator<Item = [f64; N]> + '_, ImageError> {
        let count = self.width as usize * self.height as usize;
        let (values, length): (Box<dyn Fn(usize) -> f64 + '_>, usize) = match &self.values {
            DecodingResult::U8(values) => (Box::new(|at| values[at].into()), values.len()),
            DecodingResult::U16(values) => (Box::new(|at| values[at].into()), values.len()),
            DecodingResult::U32(values) => (Box::new(|at| values[at].into()), values.len()),
            DecodingResult::I32(values) => (Box::new(|at| values[at].into()), values.len()),
            DecodingResult::F32(values) => (Box::new(|at| values[at].into()), values.len()),
            DecodingResult::F64(values) => (Box::new(|at| values[at]), values.len()),
            _ => return Err(source.unsupported("this type of samples")),
        };
        let samples = length / count;
        if samples < N {
            return Err(source.corrupt("fewer samples than the header announces"));
        }
        let (pixel_step, sample_step) = if self.planes > 1 { (1, count) } else { (samples, 1) };
        Ok((0..count).map(move |pixel| {
            std::array::from_fn(|sample| values(pixel * pixel_step + sample * sample_step))
        }))
    }

    /// Samples of less than a byte: the highest bits come first, and each row starts with a byte of its own.
    fn unpack(&self, source: &Source<'_>, bits: u8) -> Result<Vec<u8>, ImageError> {
        let DecodingResult::U8(bytes) = &self.values else {
            return Err(source.unsupported("this type of samples"));
        };
        let per_byte = 8 / usize::from(bits);
        let width = self.width as usize;
        let rows = bytes.chunks_exact(width.div_ceil(per_byte)).take(self.height as usize);
        let mask = u8::MAX >> (8 - bits);
        Ok(rows
            .flat_map(|row| {
                (0..width).map(move |x| {
                    let shift = 8 - usize::from(bits) * (x % per_byte + 1);
                    (row[x / per_byte] >> shift) & mask
                })
            })
            .collect())
    }
}

fn convert(source: &Source<'_>, error: TiffError) -> ImageError {
    match error {
        TiffError::LimitsExceeded => source.too_much_memory(),
        TiffError::UnsupportedError(detail) => source.unsupported(detail.to_string()),
        other => source.corrupt(other.to_string()),
    }
}
