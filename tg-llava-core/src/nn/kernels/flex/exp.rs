//! An exponential that compilers can turn into vector instructions.

/// `e^x`, to two or three units in the last place; 0 below -87.3, as the smallest numbers are not worth their cost.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number, in the low bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = (clamped - whole * LN2_HIGH) - whole * LN2_LOW;
    // Taylor's series to the seventh power; |rest| <= ln 2 / 2.
    let mut sum = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * rest + factor;
    }
    // The whole number of doublings goes straight into the exponent's bits.
    let doublings = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let power = f32::from_bits(doublings.wrapping_add(127) << 23);
    if x < -87.3 { 0.0 } else { sum * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_two_units_in_the_last_place() {
        for step in -870_000..880_000 {
            let x = step as f32 / 10_000.0;
            let (mine, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((mine - exact).abs() <= 2.5e-7 * exact, "{x}: {mine} != {exact}");
        }
        assert_eq!((exp(0.0), exp(-1e30), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }
}
