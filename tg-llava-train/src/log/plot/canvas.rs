//! A picture in memory: drawn large, scaled down, stored as PNG.

use std::path::Path;

use image::{ImageFormat, RgbImage, imageops};
use plotters::{
    prelude::*,
    style::{FontStyle, register_font},
};

use super::{
    super::LogError,
    panel::{Area, FONT, Failure, px, title_style},
};

/// Size of a picture.
pub(super) const SIZE: (u32, u32) = (1200, 800);

/// DejaVu Sans, cut down to Latin-1: no system font is needed, and a plot looks the same everywhere.
static FONT_DATA: &[u8] = include_bytes!("../../../assets/DejaVuSans-Latin1.ttf");

/// Draws a white picture with a title and, below it, what `draw` puts there; writes it to `path` as PNG.
pub(super) fn picture(
    path: &Path,
    title: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Failure>,
) -> Result<(), LogError> {
    let failed = |failure: Failure| LogError::Draw { path: path.to_path_buf(), message: failure.to_string() };
    register_font(FONT, FontStyle::Normal, FONT_DATA)
        .map_err(|_| failed("the built-in font cannot be read".into()))?;
    let (width, height) = (px(SIZE.0), px(SIZE.1));
    let mut image = RgbImage::new(width, height);
    paint(&mut image, (width, height), title, draw).map_err(failed)?;
    // A box filter: each pixel is the mean of those it is made of.
    let image = imageops::thumbnail(&image, SIZE.0, SIZE.1);
    image
        .save_with_format(path, ImageFormat::Png)
        .map_err(|source| LogError::Png { path: path.to_path_buf(), source })
}

fn paint(
    pixels: &mut [u8],
    size: (u32, u32),
    title: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let root = BitMapBackend::with_buffer(pixels, size).into_drawing_area();
    root.fill(&WHITE)?;
    let body = root.margin(px(10), px(8), px(10), px(10)).titled(title, title_style())?;
    draw(&body)?;
    root.present()?;
    Ok(())
}
