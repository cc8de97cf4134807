//! What the codes of four and eight bits stand for.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// What the sixteen codes of a 4-bit tensor stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FourBitKind {
    /// Quantiles of the normal distribution (QLoRA, appendix E).
    Nf4,
    /// Floats of a sign, two bits of exponent and one of mantissa.
    Fp4,
}

/// Ascending.
pub(super) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Magnitudes of FP4's codes 0 to 7; 8 to 15 are their negatives.
const FP4: [f32; 8] = [0.0, 0.005_208_333_5, 0.666_666_7, 1.0, 0.333_333_34, 0.5, 0.166_666_67, 0.25];

impl FourBitKind {
    /// Its name in files: `quant_type`, and the end of the state's key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nf4 => "nf4",
            Self::Fp4 => "fp4",
        }
    }

    /// What the codes stand for, as files hold it in `quant_map`.
    pub fn map(self) -> [f32; 16] {
        match self {
            Self::Nf4 => NF4,
            Self::Fp4 => std::array::from_fn(|code| if code < 8 { FP4[code] } else { 0.0 - FP4[code - 8] }),
        }
    }
}

/// The NF4 code nearest to `value`, of [-1, 1]; a tie goes down.
pub(super) fn nearest_nf4(value: f32) -> u8 {
    const BETWEEN: [f32; 15] = {
        let mut between = [0.0; 15];
        let mut code = 0;
        while code < 15 {
            between[code] = (NF4[code] + NF4[code + 1]) / 2.0;
            code += 1;
        }
        between
    };
    BETWEEN.iter().map(|middle| u8::from(value > *middle)).sum()
}

/// What the codes of eight bits stand for: the library's signed dynamic map, ascending. Decades from 1e-6 to 1, each cut twice as
/// finely as the one below.
pub static DYNAMIC: LazyLock<[f32; 256]> = LazyLock::new(|| {
    let mut map = Vec::with_capacity(256);
    for decade in 0..7 {
        let pieces = 1usize << decade;
        let scale = 10f64.powi(decade - 6) as f32;
        for piece in 0..pieces {
            let middle = (boundary(piece, pieces) + boundary(piece + 1, pieces)) / 2.0;
            map.extend([scale * middle, -(scale * middle)]);
        }
    }
    map.extend([0.0, 1.0]);
    map.sort_by(f32::total_cmp);
    std::array::from_fn(|code| map[code])
});

/// Point `index` of `pieces` equal pieces of [0.1, 1] as PyTorch's `linspace` computes it: from the nearer end, rounded once.
fn boundary(index: usize, pieces: usize) -> f32 {
    let (start, end) = (0.1f32, 1f32);
    let step = (end - start) / pieces as f32;
    if index < pieces.div_ceil(2) {
        step.mul_add(index as f32, start)
    } else {
        (-step).mul_add((pieces - index) as f32, end)
    }
}

/// The 8-bit code for `value`, of [-1, 1]. As in the library's CPU code, `value` goes to one of 65,536 places first, so that it is
/// not always the nearest code.
pub(super) fn dynamic_code(value: f32) -> u8 {
    static CODES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let between: Vec<f32> = DYNAMIC.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
        let code = |place: u16| {
            let value = f32::from(place) / 65_535.0 * 2.0 - 1.0;
            between.partition_point(|middle| value > *middle) as u8
        };
        (0..=u16::MAX).map(code).collect()
    });
    let place = (value.clamp(-1.0, 1.0) + 1.0) * 0.5 * 65_535.0;
    // A value that is no number goes to the first place.
    CODES[(place + 0.5) as u16 as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_between_two_codes_goes_down() {
        for code in 0..15u8 {
            let middle = (NF4[usize::from(code)] + NF4[usize::from(code) + 1]) / 2.0;
            assert_eq!(nearest_nf4(middle), code);
            assert_eq!(nearest_nf4(middle.next_up()), code + 1);
        }
        assert_eq!((nearest_nf4(-1.0), nearest_nf4(0.0), nearest_nf4(1.0)), (0, 7, 15));
    }

    #[test]
    fn every_code_of_eight_bits_is_reached_but_those_closer_than_a_place() {
        let codes: std::collections::BTreeSet<u8> =
            DYNAMIC.iter().map(|value| dynamic_code(*value)).collect();
        assert!(codes.len() > 235, "{}", codes.len());
        assert_eq!(dynamic_code(f32::NAN), 0);
        assert_eq!((dynamic_code(-1.0), dynamic_code(1.0)), (0, 255));
    }
}
