//! What sizes and numbers of a configuration may be.
//!
//! The bounds lie far beyond every published model. They keep what a damaged or hostile config.json asks for from
//! reaching the allocator, and products of two or three sizes from overflowing.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// Blocks of a tower, the decoder or a bridge.
pub(super) const LAYERS: RangeInclusive<usize> = 1..=1024;
/// Attention heads.
pub(super) const HEADS: RangeInclusive<usize> = 1..=4096;
/// Width of hidden states, of a feed-forward, or of one head.
pub(super) const WIDTH: RangeInclusive<usize> = 1..=1 << 18;
/// Entries of a vocabulary.
pub(super) const VOCABULARY: RangeInclusive<usize> = 1..=1 << 24;
/// Positions of a context.
pub(super) const POSITIONS: RangeInclusive<usize> = 1..=1 << 24;
/// Patches of a picture, or latents that stand for one.
pub(super) const PATCHES: RangeInclusive<usize> = 1..=1 << 16;
/// Edge of a picture or of a patch, in pixels.
pub(super) const PIXELS: RangeInclusive<usize> = 1..=4096;
/// Epsilon of a norm; as an f32 it is above zero.
pub(super) const EPSILON: RangeInclusive<f64> = 1e-30..=1.0;

/// Checks that the value of a key is in its range.
///
/// # Errors
/// [`Error::Config`] with key, value and range.
pub(super) fn check<T: PartialOrd + std::fmt::Debug>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(Error::Config(match least == most {
        true => format!("{key} = {value:?}; it must be {least:?}"),
        false => format!("{key} = {value:?}; it must be between {least:?} and {most:?}"),
    }))
}

/// Checks several sizes, the first that is out of its range being the error.
///
/// # Errors
/// As [`check`]; keys are named below `part`, where that is not empty.
pub(super) fn check_sizes<const N: usize>(
    part: &str,
    sizes: [(&str, usize, RangeInclusive<usize>); N],
) -> Result<()> {
    sizes.into_iter().try_for_each(|(key, value, range)| check(&named(part, key), value, range))
}

/// `key` below `part`.
pub(super) fn named(part: &str, key: &str) -> String {
    if part.is_empty() { key.to_owned() } else { format!("{part}.{key}") }
}

/// Checks that `hidden_size` divides into heads.
///
/// # Errors
/// [`Error::Config`] with both sizes.
pub(super) fn check_heads(part: &str, hidden_size: usize, num_heads: usize) -> Result<()> {
    check_sizes(part, [("hidden_size", hidden_size, WIDTH), ("num_attention_heads", num_heads, HEADS)])?;
    multiple(part, ("hidden_size", hidden_size), ("num_attention_heads", num_heads))
}

/// Checks that the first size is a multiple of the second, which is not zero.
///
/// # Errors
/// [`Error::Config`] with both.
pub(super) fn multiple(part: &str, size: (&str, usize), of: (&str, usize)) -> Result<()> {
    if size.1.is_multiple_of(of.1) {
        return Ok(());
    }
    let key = named(part, size.0);
    Err(Error::Config(format!("{key} = {} is not a multiple of {} = {}", size.1, of.0, of.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_key_value_and_range() {
        assert!(check("depth", 1024, LAYERS).is_ok());
        let error = check("perceiver.depth", 1 << 20, LAYERS).unwrap_err().to_string();
        assert_eq!(error, "configuration: perceiver.depth = 1048576; it must be between 1 and 1024");
        let error = check("eps", f64::NAN, EPSILON).unwrap_err().to_string();
        assert_eq!(error, "configuration: eps = NaN; it must be between 1e-30 and 1.0");
        assert_eq!(
            check("num_channels", 4, 3..=3).unwrap_err().to_string(),
            "configuration: num_channels = 4; it must be 3"
        );
        let error = check_heads("text tower", 10, 3).unwrap_err().to_string();
        assert!(error.contains("text tower.hidden_size = 10 is not a multiple of num_attention_heads = 3"));
    }
}
