//! Pictures from files or bytes to RGB, as Pillow's `Image.open(..).convert("RGB")` gives them.
//!
//! Alpha is dropped, not composited; a palette's transparency is ignored; the first frame of an
//! animation counts. The format is found by content, never by the file's name. Limits hold before
//! anything of the announced size is allocated.

use std::{
    fs::File,
    io::{Cursor, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage, error::ImageError as CrateError,
    metadata::Orientation,
};

use super::{error::ImageError, gif, jpeg, png, tiff};

/// What 16-bit grey pixels become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SixteenBitGrey {
    /// Values over 255 become 255, as Pillow and so the reference does it: most such pictures turn white.
    #[default]
    Clip,
    /// The upper eight bits, which keeps the picture.
    Scale,
}

/// How pictures are read and how much they may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Turn the picture as its EXIF orientation says. The reference ignores it, so the default is `false`.
    /// (TIFF is always turned: Pillow does so on loading.)
    pub apply_exif: bool,
    /// What 16-bit grey pixels become.
    pub sixteen_bit_grey: SixteenBitGrey,
    /// Most pixels that a header may announce. Default: Pillow's own limit, 178,956,970.
    pub max_pixels: u64,
    /// Most bytes of an encoded picture. Default: 256 MiB.
    pub max_bytes: u64,
    /// Most bytes that a decoder may allocate for one picture. Default: 2 GiB.
    pub max_alloc: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            apply_exif: false,
            sixteen_bit_grey: SixteenBitGrey::default(),
            max_pixels: 178_956_970,
            max_bytes: 256 << 20,
            max_alloc: 2 << 30,
        }
    }
}

/// Reads the picture at `path`.
///
/// # Errors
/// [`ImageError::Read`] where the file cannot be read, [`ImageError::NotAFile`] for folders, pipes and devices, and everything of [`decode_bytes`].
pub fn decode_file(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<RgbImage, ImageError> {
    let path = path.as_ref();
    let read_error = |source| ImageError::Read { path: path.to_path_buf(), source };
    // Opening a pipe waits for its writer, and a device may never end.
    if !std::fs::metadata(path).map_err(read_error)?.is_file() {
        return Err(ImageError::NotAFile { path: path.to_path_buf() });
    }
    let file = File::open(path).map_err(read_error)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long from one that just fits, whatever its metadata
    // say.
    file.take(options.max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(read_error)?;
    decode_bytes(&bytes, &path.display().to_string(), options)
}

/// Reads an encoded picture; `name` stands for it in messages.
///
/// # Errors
/// Another [`ImageError`] for each of: no bytes, no picture, an unknown kind of pixels, damaged or cut data,
/// a size over a limit of `options`.
pub fn decode_bytes(bytes: &[u8], name: &str, options: &DecodeOptions) -> Result<RgbImage, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty { name: name.into() });
    }
    let length = bytes.len() as u64;
    if length > options.max_bytes {
        return Err(ImageError::TooManyBytes { name: name.into(), bytes: length, limit: options.max_bytes });
    }
    let Some(format) = guess_format(bytes) else {
        return Err(ImageError::NotAnImage { name: name.into() });
    };
    let source = Source { bytes, name, format: format_name(format), options };
    let decode = || match format {
        ImageFormat::Jpeg => jpeg::decode(&source),
        ImageFormat::Gif => gif::decode(&source),
        ImageFormat::Tiff => tiff::decode(&source),
        ImageFormat::Png => png::decode(&source),
        ImageFormat::WebP | ImageFormat::Bmp => decode_general(&source, format),
        _ => Err(source.unsupported("this kind of file")),
    };
    // Hostile bytes can trip a decoder's bounds checks, and a picture must not end the program.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(source.corrupt("the decoder gave up")))
}

/// One encoded picture on its way through a decoder.
pub(super) struct Source<'a> {
    pub bytes: &'a [u8],
    pub name: &'a str,
    pub format: &'static str,
    pub options: &'a DecodeOptions,
}

impl Source<'_> {
    /// Refuses sizes that the options rule out; to be called before anything of that size is allocated.
    pub fn check_size(&self, width: impl Into<u64>, height: impl Into<u64>) -> Result<(), ImageError> {
        let (width, height) = (width.into(), height.into());
        let (name, limit) = (self.name.to_owned(), self.options.max_pixels);
        if width == 0 || height == 0 {
            Err(ImageError::NoPixels { name, width, height })
        } else if width.saturating_mul(height) > limit {
            Err(ImageError::TooManyPixels { name, width, height, limit })
        } else if width.saturating_mul(height).saturating_mul(3) > self.options.max_alloc {
            Err(self.too_much_memory())
        } else {
            Ok(())
        }
    }

    pub fn unsupported(&self, detail: impl Into<String>) -> ImageError {
        ImageError::Unsupported { name: self.name.into(), format: self.format, detail: detail.into() }
    }

    pub fn corrupt(&self, detail: impl Into<String>) -> ImageError {
        ImageError::Corrupt { name: self.name.into(), format: self.format, detail: detail.into() }
    }

    pub fn too_much_memory(&self) -> ImageError {
        let limit = self.options.max_alloc;
        ImageError::TooMuchMemory { name: self.name.into(), format: self.format, limit }
    }

    /// `data` as a picture; a length that does not fit is the decoder's contradiction.
    pub fn rgb(&self, width: u32, height: u32, data: Vec<u8>) -> Result<RgbImage, ImageError> {
        RgbImage::from_raw(width, height, data)
            .ok_or_else(|| self.corrupt("fewer pixels than the header announces"))
    }

    pub fn convert_error(&self, error: CrateError) -> ImageError {
        match error {
            CrateError::Limits(_) => self.too_much_memory(),
            CrateError::Unsupported(error) => self.unsupported(error.to_string()),
            other => self.corrupt(other.to_string()),
        }
    }
}

/// What the `image` crate reads as Pillow does, or nearly (16-bit BMP: one grey level at most).
pub(super) fn decode_general(source: &Source<'_>, format: ImageFormat) -> Result<RgbImage, ImageError> {
    let failed = |error| source.convert_error(error);
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(source.options.max_alloc);
    let mut reader = ImageReader::with_format(Cursor::new(source.bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    source.check_size(width, height)?;
    limits.reserve(decoder.total_bytes()).map_err(failed)?;
    decoder.set_limits(limits).map_err(failed)?;

    let turn = format == ImageFormat::Tiff || source.options.apply_exif;
    let orientation = if turn { decoder.orientation().map_err(failed)? } else { Orientation::NoTransforms };
    let picture = DynamicImage::from_decoder(decoder).map_err(failed)?;
    Ok(orient(to_rgb(picture, source.options.sixteen_bit_grey), orientation))
}

/// `picture` turned and mirrored as `orientation` says.
pub(super) fn orient(picture: RgbImage, orientation: Orientation) -> RgbImage {
    if orientation == Orientation::NoTransforms {
        return picture;
    }
    let mut picture = DynamicImage::from(picture);
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

/// One 16-bit grey value as eight bits.
pub(super) fn grey16_to_8(value: u16, rule: SixteenBitGrey) -> u8 {
    match rule {
        SixteenBitGrey::Clip => u8::try_from(value).unwrap_or(u8::MAX),
        SixteenBitGrey::Scale => high_byte(value),
    }
}

/// Colours of 16 bits keep their upper byte; they are not rounded.
pub(super) fn high_byte(value: u16) -> u8 {
    (value >> 8) as u8
}

fn to_rgb(picture: DynamicImage, rule: SixteenBitGrey) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let data: Vec<u8> = match picture {
        DynamicImage::ImageLuma16(grey) => {
            grey.as_raw().iter().flat_map(|&value| [grey16_to_8(value, rule); 3]).collect()
        }
        DynamicImage::ImageLumaA16(grey) => {
            grey.pixels().flat_map(|pixel| [high_byte(pixel.0[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(colour) => colour.as_raw().iter().copied().map(high_byte).collect(),
        DynamicImage::ImageRgba16(colour) => {
            colour.pixels().flat_map(|pixel| [0, 1, 2].map(|channel| high_byte(pixel.0[channel]))).collect()
        }
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, data).expect("three bytes were written for each pixel")
}

fn guess_format(bytes: &[u8]) -> Option<ImageFormat> {
    // BigTIFF, which the `image` crate reads and does not recognise.
    let big = [b"II+\0", b"MM\0+"].iter().any(|start| bytes.starts_with(*start));
    if big { Some(ImageFormat::Tiff) } else { image::guess_format(bytes).ok() }
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        other => other.extensions_str().first().copied().unwrap_or("an unknown format"),
    }
}
