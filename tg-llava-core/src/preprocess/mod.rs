//! Pictures, from encoded bytes to the numbers that the vision tower takes.
//!
//! [`decode_file`] and [`decode_bytes`] give the RGB that Pillow gives, [`ImageProcessor`] resizes, crops and
//! normalises it as Hugging Face's processors do, and cuts the detail crops. Plain buffers throughout; no
//! tensor, no device.

mod crops;
mod decode;
mod error;
mod filter;
pub mod geometry;
mod gif;
mod jpeg;
mod kernel;
mod picture_id;
mod png;
mod processor;
mod processor_config;
pub mod resize;
mod tiff;

pub use crops::{DetailSource, Pixels, quadrant_crops, upsample_2x};
pub use decode::{DecodeOptions, SixteenBitGrey, decode_bytes, decode_file};
pub use error::ImageError;
pub use image::RgbImage;
pub use picture_id::PictureId;
pub use processor::{AspectRatio, ImageProcessor, PreparedImage};

#[cfg(test)]
mod bad_input_tests;
#[cfg(test)]
mod decode_tests;
