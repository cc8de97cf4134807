//! Pictures that cannot be used, and what is said about them.

use std::io::Cursor;

use image::{ImageFormat, Rgb};

use super::{
    AspectRatio, DecodeOptions, DetailSource, ImageError, ImageProcessor, RgbImage, decode_bytes, decode_file,
};

const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
];

fn encoded(format: ImageFormat) -> Vec<u8> {
    let noise = |x: u32, y: u32| (x * 7919 + y * 104_729 + x * y * 31) as u8;
    let picture = RgbImage::from_fn(60, 40, |x, y| Rgb([noise(x, y), noise(y, x), (x + y) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

fn failure(bytes: &[u8], options: &DecodeOptions) -> ImageError {
    decode_bytes(bytes, "picture", options).map(|picture| picture.dimensions()).expect_err("must fail")
}

#[test]
fn a_missing_file_is_named() {
    let error = decode_file("no/such/picture.png", &DecodeOptions::default()).expect_err("must fail");
    assert!(matches!(error, ImageError::Read { .. }));
    assert!(error.to_string().starts_with("no/such/picture.png: the picture cannot be read: "));
}

#[test]
fn an_empty_file_is_said_to_be_empty() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("empty.png");
    std::fs::write(&path, []).expect("writes");
    let error = decode_file(&path, &DecodeOptions::default()).expect_err("must fail");
    assert!(matches!(&error, ImageError::Empty { name } if name.ends_with("empty.png")), "{error}");
}

#[test]
fn what_is_no_picture_is_told_from_a_broken_one() {
    for bytes in ["just text".as_bytes(), &[0; 100], b"\x89PN"] {
        assert!(matches!(failure(bytes, &DecodeOptions::default()), ImageError::NotAnImage { .. }));
    }
    let error = failure(b"qoif\0\0\0\x08\0\0\0\x08\x03\0", &DecodeOptions::default());
    assert!(matches!(error, ImageError::Unsupported { format: "qoi", .. }), "{error}");
}

#[test]
fn a_picture_that_ends_early_is_refused() {
    for format in FORMATS {
        let whole = encoded(format);
        for length in [whole.len() / 2, whole.len() * 9 / 10, 40, 12] {
            let error = failure(&whole[..length], &DecodeOptions::default());
            assert!(matches!(error, ImageError::Corrupt { .. }), "{format:?} cut to {length}: {error}");
        }
    }
}

#[test]
fn damaged_data_never_panic() {
    for format in FORMATS {
        let whole = encoded(format);
        for position in 0..whole.len().min(600) {
            let mut damaged = whole.clone();
            damaged[position] ^= 0xa5;
            let _ = decode_bytes(&damaged, "picture", &DecodeOptions::default());
        }
    }
}

/// A picture whose header announces 50000x50000 pixels, or what comes nearest in the format.
fn huge(format: ImageFormat) -> Vec<u8> {
    let mut bytes = encoded(format);
    let find = |bytes: &[u8], what: &[u8]| {
        bytes.windows(what.len()).position(|window| window == what).expect("the header")
    };
    let side = 50_000_u16;
    match format {
        ImageFormat::Png => {
            bytes[16..20].copy_from_slice(&u32::from(side).to_be_bytes());
            bytes[20..24].copy_from_slice(&u32::from(side).to_be_bytes());
            let crc = crc32(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        }
        ImageFormat::Jpeg => {
            let frame = find(&bytes, &[0xff, 0xc0]);
            bytes[frame + 5..frame + 7].copy_from_slice(&side.to_be_bytes());
            bytes[frame + 7..frame + 9].copy_from_slice(&side.to_be_bytes());
        }
        ImageFormat::Gif => {
            bytes[6..8].copy_from_slice(&side.to_le_bytes());
            bytes[8..10].copy_from_slice(&side.to_le_bytes());
        }
        ImageFormat::Bmp => {
            bytes[18..22].copy_from_slice(&u32::from(side).to_le_bytes());
            bytes[22..26].copy_from_slice(&u32::from(side).to_le_bytes());
        }
        ImageFormat::Tiff => {
            // Width, height, and rows of the one strip.
            for tag in [256_u16, 257, 278] {
                let entry =
                    find(&bytes, &[tag.to_le_bytes(), 4_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
                bytes[entry + 8..entry + 12].copy_from_slice(&u32::from(side).to_le_bytes());
            }
        }
        // Fourteen bits hold a side less one: 16384 at most, which is over the limit as well.
        _ => {
            let start = find(&bytes, b"VP8L") + 9;
            bytes[start..start + 4].copy_from_slice(&(15_999_u32 | 15_999 << 14).to_le_bytes());
        }
    }
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn a_header_of_50000x50000_is_refused_before_anything_is_allocated() {
    for format in FORMATS {
        let error = failure(&huge(format), &DecodeOptions::default());
        let side = if format == ImageFormat::WebP { 16_000 } else { 50_000 };
        let ImageError::TooManyPixels { width, height, limit, .. } = error else {
            panic!("{format:?}: {error}");
        };
        assert_eq!((width, height, limit), (side, side, DecodeOptions::default().max_pixels), "{format:?}");
    }
}

#[test]
fn every_limit_is_an_option() {
    for format in FORMATS {
        let bytes = encoded(format);
        let exact =
            DecodeOptions { max_pixels: 2400, max_bytes: bytes.len() as u64, ..DecodeOptions::default() };
        assert!(decode_bytes(&bytes, "picture", &exact).is_ok(), "{format:?}");

        let pixels = DecodeOptions { max_pixels: 2399, ..exact.clone() };
        assert!(
            matches!(failure(&bytes, &pixels), ImageError::TooManyPixels { limit: 2399, .. }),
            "{format:?}"
        );
        let length = DecodeOptions { max_bytes: bytes.len() as u64 - 1, ..exact.clone() };
        assert!(matches!(failure(&bytes, &length), ImageError::TooManyBytes { .. }), "{format:?}");
        let memory = DecodeOptions { max_alloc: 1000, ..exact };
        let error = failure(&bytes, &memory);
        assert!(matches!(error, ImageError::TooMuchMemory { limit: 1000, .. }), "{format:?}: {error}");
    }
}

#[test]
fn a_file_over_the_byte_limit_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("long.png");
    std::fs::write(&path, vec![0; 5000]).expect("writes");
    let options = DecodeOptions { max_bytes: 100, ..DecodeOptions::default() };
    let error = decode_file(&path, &options).expect_err("must fail");
    assert!(matches!(error, ImageError::TooManyBytes { bytes: 101, limit: 100, .. }), "{error}");
}

#[test]
fn what_is_no_file_is_not_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = decode_file(folder.path(), &DecodeOptions::default()).expect_err("must fail");
    assert!(matches!(&error, ImageError::NotAFile { path } if path == folder.path()), "{error}");
}

/// Profiles and texts can grow a thousandfold when they are unpacked. That they are not even read shows in what is
/// taken: a reader of profiles refuses a second one, and knows no compression 7.
#[test]
fn colour_profiles_and_texts_of_a_png_are_not_unpacked() {
    let mut bytes = encoded(ImageFormat::Png);
    for name in [b"iCCP", b"iCCP", b"zTXt"] {
        let body = [&name[..], b"k\0\x07", &[0; 40]].concat();
        let chunk = [&43_u32.to_be_bytes()[..], &body, &crc32(&body).to_be_bytes()].concat();
        // Behind the header.
        bytes.splice(33..33, chunk);
    }
    assert!(decode_bytes(&bytes, "picture", &DecodeOptions::default()).is_ok());
}

#[test]
fn strips_of_one_pixel_are_pictures() {
    for (width, height) in [(37, 1), (1, 37), (1, 1), (20_000, 1), (3, 1), (37, 3)] {
        let strip = RgbImage::from_pixel(width, height, Rgb([200, 100, 50]));
        let mut bytes = Cursor::new(Vec::new());
        strip.write_to(&mut bytes, ImageFormat::Png).expect("encodes");
        let strip = decode_bytes(&bytes.into_inner(), "strip", &DecodeOptions::default()).expect("decodes");
        for aspect in [AspectRatio::Square, AspectRatio::Pad] {
            let prepared = ImageProcessor::clip(14).prepare(&strip, aspect, DetailSource::Native);
            assert_eq!((prepared.pixels.len(), prepared.crops.len()), (588, 2352));
            assert!(prepared.pixels.iter().chain(&prepared.crops).all(|value| value.is_finite()));
        }
    }
}
