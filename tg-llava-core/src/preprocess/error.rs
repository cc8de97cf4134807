//! What can be wrong with a picture.

use std::path::PathBuf;

/// A picture that cannot be read. Every message names the picture and says what would help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file cannot be opened or read.
    #[error("{path}: the picture cannot be read: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The path leads to something else than a file: nothing is opened, since a pipe may never end.
    #[error("{path}: a folder, pipe or device, not a file; save the picture to a file", path = path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// There are no bytes at all.
    #[error("{name}: the picture is empty (0 bytes); save or download it again")]
    Empty {
        /// The file, or what the caller named the bytes.
        name: String,
    },
    /// The first bytes belong to no picture format.
    #[error("{name}: not a picture: {SUPPORTED} are recognised by their first bytes, and these match none")]
    NotAnImage {
        /// The file, or what the caller named the bytes.
        name: String,
    },
    /// A picture, but of a format or a kind of pixels that is not read here.
    #[error("{name}: {format} with {detail} is not supported; convert the picture to an 8-bit PNG or JPEG")]
    Unsupported {
        /// The file, or what the caller named the bytes.
        name: String,
        /// The format that the first bytes announce.
        format: &'static str,
        /// What this reader lacks.
        detail: String,
    },
    /// The header is a picture's, the data behind it are broken or end too early.
    #[error(
        "{name}: the {format} data are damaged or cut short ({detail}); save or download the picture again"
    )]
    Corrupt {
        /// The file, or what the caller named the bytes.
        name: String,
        /// The format that the first bytes announce.
        format: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// More bytes than [`max_bytes`](super::DecodeOptions::max_bytes).
    #[error(
        "{name}: {bytes} bytes are over the limit of {limit}; raise `max_bytes` if the file can be trusted"
    )]
    TooManyBytes {
        /// The file, or what the caller named the bytes.
        name: String,
        /// Size of the encoded picture; a lower bound where the file was not read to its end.
        bytes: u64,
        /// The limit in force.
        limit: u64,
    },
    /// The header announces more pixels than [`max_pixels`](super::DecodeOptions::max_pixels).
    #[error(
        "{name}: {width}x{height} pixels are over the limit of {limit} pixels; \
         raise `max_pixels` if the picture can be trusted"
    )]
    TooManyPixels {
        /// The file, or what the caller named the bytes.
        name: String,
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
        /// The limit in force, in pixels.
        limit: u64,
    },
    /// Decoding wants more memory than [`max_alloc`](super::DecodeOptions::max_alloc).
    #[error(
        "{name}: decoding {format} wants more than {limit} bytes of memory; \
         raise `max_alloc` if the picture can be trusted"
    )]
    TooMuchMemory {
        /// The file, or what the caller named the bytes.
        name: String,
        /// The format that the first bytes announce.
        format: &'static str,
        /// The limit in force, in bytes.
        limit: u64,
    },
    /// The header announces a side of zero pixels.
    #[error("{name}: a picture of {width}x{height} pixels holds nothing to look at")]
    NoPixels {
        /// The file, or what the caller named the bytes.
        name: String,
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
    },
}

/// The formats read, for messages.
const SUPPORTED: &str = "PNG, JPEG, WebP, GIF, BMP and TIFF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_picture_the_values_and_the_remedy() {
        let error =
            ImageError::TooManyPixels { name: "a.png".into(), width: 50_000, height: 40_000, limit: 7 };
        assert_eq!(
            error.to_string(),
            "a.png: 50000x40000 pixels are over the limit of 7 pixels; raise `max_pixels` if the picture can be trusted"
        );
        let error = ImageError::NotAnImage { name: "a.txt".into() };
        assert!(error.to_string().contains("PNG, JPEG, WebP, GIF, BMP and TIFF"));
    }
}
