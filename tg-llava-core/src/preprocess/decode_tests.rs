//! Every format and kind of pixels against what Pillow gives.

use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageEncoder, ImageFormat, Luma, LumaA, Rgb, Rgba};

use super::{DecodeOptions, ImageError, RgbImage, SixteenBitGrey, decode_bytes, decode_file};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/preprocess/images");

/// FNV-1a of what Pillow 13.0.0 (libjpeg-turbo 3.2.0, libtiff 4.7.2) decodes of files in `tests/pictures`.
const PILLOW: [(&str, u64); 10] = [
    ("big-palette.tif", 0xbc21_eb10_afaa_1316),
    ("cmyk-420.jpg", 0x3578_7d26_7986_326d),
    ("cmyk-422-progressive.jpg", 0x2b89_8613_cc91_c5a8),
    ("cmyk-440.jpg", 0x6cff_538f_01a4_9107),
    ("la-jpeg.tif", 0xf011_0742_95c1_6e5f),
    ("palette-alpha.tif", 0xbc21_eb10_afaa_1316),
    ("ycbcr-420-jpeg-tiles.tif", 0x1acf_66a3_bb81_9caa),
    ("ycbcr-jpeg.tif", 0x4974_6f76_3e4c_4d67),
    ("ycck-411.jpg", 0xe149_f1f5_b545_8f55),
    ("ycck-420.jpg", 0x4acd_1a72_f55b_1b23),
];

/// A number that stands for `bytes`, to compare with what another program computed.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn unusual_jpegs_and_tiffs_equal_pillow() {
    for (name, hash) in PILLOW {
        let path = format!("{}/tests/pictures/{name}", env!("CARGO_MANIFEST_DIR"));
        let picture = decode_file(path, &DecodeOptions::default()).expect(name);
        assert_eq!(fnv1a(picture.as_raw()), hash, "{name}");
    }
}

#[test]
fn tiffs_that_are_not_read_say_why() {
    for (compression, photometric, named) in [
        (3, 1, "CCITT Group 3 compression"),
        (6, 6, "old-style JPEG compression"),
        (34_925, 1, "LZMA compression"),
        (50_000, 1, "Zstandard compression"),
        (1, 6, "YCbCr colours"),
        (1, 8, "L*a*b* colours"),
    ] {
        let bytes = tiff(2, 2, &[(258, 8), (259, compression), (262, photometric), (277, 1)], &[], &[0; 4]);
        let error = decode_bytes(&bytes, "test", &DecodeOptions::default()).expect_err(named);
        assert!(matches!(error, ImageError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(&format!("TIFF with {named}")), "{error}");
    }
}

/// The picture needs six tiles; what is not there would be black.
#[test]
fn a_tiff_that_lacks_a_tile_is_damaged() {
    let mut bytes = include_bytes!("../../tests/pictures/ycbcr-420-jpeg-tiles.tif").to_vec();
    let directory = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    let count = usize::from(bytes[directory]);
    for entry in (0..count).map(|entry| directory + 2 + 12 * entry) {
        // TileOffsets and TileByteCounts: how many there are.
        if let (324 | 325, 6) = (u16::from_le_bytes([bytes[entry], bytes[entry + 1]]), bytes[entry + 4]) {
            bytes[entry + 4] = 5;
        }
    }
    let error = decode_bytes(&bytes, "test", &DecodeOptions::default()).expect_err("lacks a tile");
    assert!(error.to_string().contains("damaged or cut short"), "{error}");
}

fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

fn decode(bytes: &[u8]) -> RgbImage {
    decode_bytes(bytes, "test", &DecodeOptions::default()).expect("decodes")
}

fn colours() -> RgbImage {
    RgbImage::from_fn(7, 5, |x, y| Rgb([x as u8 * 30, y as u8 * 50, (x * y) as u8 * 9]))
}

#[test]
fn lossless_formats_give_back_their_pixels() {
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff]
    {
        assert_eq!(decode(&encode(colours(), format)), colours(), "{format:?}");
    }
}

#[test]
fn alpha_is_dropped() {
    let clear = ImageBuffer::from_fn(7, 5, |x, y| {
        let Rgb([r, g, b]) = *colours().get_pixel(x, y);
        Rgba([r, g, b, (x * 40) as u8])
    });
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff] {
        assert_eq!(decode(&encode(clear.clone(), format)), colours(), "{format:?}");
    }
    let grey = ImageBuffer::from_pixel(2, 2, LumaA([77_u8, 3]));
    assert_eq!(decode(&encode(grey, ImageFormat::Png)).get_pixel(1, 1), &Rgb([77; 3]));
}

#[test]
fn sixteen_bit_colours_keep_their_upper_byte() {
    let colour = ImageBuffer::from_pixel(3, 2, Rgb([0x12ff_u16, 0x00ff, 0xfffe]));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_eq!(decode(&encode(colour.clone(), format)).get_pixel(2, 1), &Rgb([0x12, 0, 0xff]));
    }
    let clear = ImageBuffer::from_pixel(3, 2, Rgba([0x12ff_u16, 0x00ff, 0xfffe, 5]));
    assert_eq!(decode(&encode(clear, ImageFormat::Png)).get_pixel(0, 0), &Rgb([0x12, 0, 0xff]));
}

#[test]
fn sixteen_bit_grey_is_clipped_as_pillow_does_unless_scaling_is_asked_for() {
    let grey = ImageBuffer::from_fn(3, 1, |x, _| Luma([[7_u16, 255, 0x8034][x as usize]]));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let bytes = encode(grey.clone(), format);
        assert_eq!(decode(&bytes).as_raw(), &[7, 7, 7, 255, 255, 255, 255, 255, 255]);
        let options = DecodeOptions { sixteen_bit_grey: SixteenBitGrey::Scale, ..DecodeOptions::default() };
        let scaled = decode_bytes(&bytes, "test", &options).expect("decodes");
        assert_eq!(scaled.as_raw(), &[0, 0, 0, 0, 0, 0, 0x80, 0x80, 0x80]);
    }
}

#[test]
fn jpeg_equals_pillow_bit_for_bit() {
    for stem in ["photo_a", "exif"] {
        let file = |suffix| decode_file(format!("{FIXTURES}/{stem}.{suffix}"), &DecodeOptions::default());
        assert!(file("jpg").expect("decodes") == file("decoded.png").expect("decodes"), "{stem}");
    }
}

#[test]
fn exif_turns_only_when_asked_to() {
    let path = format!("{FIXTURES}/exif.jpg");
    let plain = decode_file(&path, &DecodeOptions::default()).expect("decodes");
    let options = DecodeOptions { apply_exif: true, ..DecodeOptions::default() };
    let turned = decode_file(&path, &options).expect("decodes");
    assert_eq!(plain.dimensions(), (180, 113));
    assert!(turned == image::imageops::rotate90(&plain));
}

/// A little-endian TIFF of one strip; `tags` beside the size and the strip are pairs of tag and 16-bit value.
fn tiff(width: u32, height: u32, tags: &[(u16, u16)], colour_map: &[u16], data: &[u8]) -> Vec<u8> {
    let count = 5 + tags.len() + usize::from(!colour_map.is_empty());
    let behind = 8 + 2 + 12 * count + 4;
    let map_bytes: Vec<u8> = colour_map.iter().flat_map(|value| value.to_le_bytes()).collect();
    let data_at = behind + map_bytes.len();
    let mut entries = vec![
        (256, 4_u16, 1, width),
        (257, 4, 1, height),
        (273, 4, 1, data_at as u32),
        (278, 4, 1, height),
        (279, 4, 1, data.len() as u32),
    ];
    entries.extend(tags.iter().map(|&(tag, value)| (tag, 3, 1, u32::from(value))));
    if !colour_map.is_empty() {
        entries.push((320, 3, colour_map.len() as u32, behind as u32));
    }
    entries.sort_unstable();
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((count as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        bytes.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    [bytes, vec![0; 4], map_bytes, data.to_vec()].concat()
}

#[test]
fn tiff_palettes_are_looked_up() {
    // Red, green and blue follow one another in a colour map, 16 bits each.
    let map = [[0x0000, 0x1100, 0x2200, 0xffff], [0, 0, 0, 0x8000], [0x5500, 0, 0, 0]].concat();
    let packed = tiff(3, 2, &[(258, 2), (259, 1), (262, 3), (277, 1)], &map, &[0b0001_1011, 0b1100_0000]);
    let expected = [[0, 0, 0x55], [0x11, 0, 0], [0x22, 0, 0], [0xff, 0x80, 0], [0, 0, 0x55], [0, 0, 0x55]];
    assert_eq!(decode(&packed).as_raw(), &expected.concat());

    let map: Vec<u16> = (0..768).map(|value| (value % 256) << 8).collect();
    let bytes = tiff(2, 2, &[(258, 8), (259, 1), (262, 3), (274, 6), (277, 1)], &map, &[1, 2, 3, 4]);
    // Orientation 6: TIFF is turned by a quarter, whatever the options say.
    assert_eq!(decode(&bytes).as_raw(), &[[3; 3], [1; 3], [4; 3], [2; 3]].concat());
}

#[test]
fn tiff_ink_and_grey_with_alpha() {
    let ink = tiff(1, 1, &[(258, 8), (259, 1), (262, 5), (277, 4)], &[], &[100, 0, 255, 55]);
    assert_eq!(decode(&ink).as_raw(), &[122, 200, 0]);
    let grey = tiff(2, 1, &[(258, 8), (259, 1), (262, 1), (277, 2), (338, 2)], &[], &[10, 99, 20, 98]);
    assert_eq!(decode(&grey).as_raw(), &[10, 10, 10, 20, 20, 20]);
}

#[test]
fn a_gif_frame_lies_on_its_canvas() {
    let palette = [[10, 20, 30], [40, 50, 60], [70, 80, 90], [0, 0, 0]].concat();
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, 3, 2, &palette).expect("encodes");
    for (pixels, transparent) in [([1_u8, 2], Some(2)), ([0, 0], None)] {
        let mut frame = gif::Frame::from_indexed_pixels(2, 1, pixels, transparent);
        (frame.left, frame.top) = (1, 1);
        encoder.write_frame(&frame).expect("encodes");
    }
    drop(encoder);
    // The first frame counts; around it Pillow shows the transparent colour.
    let around = [70, 80, 90];
    assert_eq!(decode(&bytes).as_raw(), &[around, around, around, around, [40, 50, 60], around].concat());
}

#[test]
fn a_cmyk_jpeg_is_taken_for_an_inverted_one() {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
    encoder.write_image(&[200; 64], 8, 8, image::ExtendedColorType::L8).expect("encodes");
    let grey = decode(&bytes);
    assert!(grey.as_raw().iter().all(|value| value.abs_diff(200) <= 1));
    // Four components of one table each, by the hand of the crate that decodes them.
    let inks = [200_u8, 100, 0, 255].repeat(64);
    let options = libjpeg_turbo_rs::Subsampling::S444;
    let cmyk = libjpeg_turbo_rs::compress(&inks, 8, 8, libjpeg_turbo_rs::PixelFormat::Cmyk, 100, options);
    let rgb = decode(&cmyk.expect("encodes"));
    for (value, expected) in rgb.get_pixel(3, 3).0.iter().zip([200_u8, 100, 0]) {
        assert!(value.abs_diff(expected) <= 2, "{:?}", rgb.get_pixel(3, 3));
    }
}

#[test]
fn the_name_of_a_file_does_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("picture.jpg");
    std::fs::write(&path, encode(colours(), ImageFormat::Png)).expect("writes");
    assert_eq!(decode_file(&path, &DecodeOptions::default()).expect("decodes"), colours());
}
