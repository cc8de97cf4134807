//! Groups beside each other against the searches as llama.cpp writes them, a group at a time.

use proptest::prelude::*;

use super::GROUP;
use super::block::nearest;
use super::search::{ScaleSearch, TINY, scales_and_minimums, symmetric_scales};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn groups_beside_each_other_are_what_each_is_alone(
        kinds in proptest::collection::vec((0u8..8, -40i32..30), 16), noise in proptest::collection::vec(-1f32..1.0, 256),
    ) {
        for search in [
            ScaleSearch { most: 15, first: -1.0, step: 0.1, steps: 20 },
            ScaleSearch { most: 31, first: -0.5, step: 0.1, steps: 15 },
        ] {
            let values = groups::<GROUP>(&kinds, &noise);
            let (mut quants, mut wanted) = ([0xaa; 256], [0xaa; 256]);
            let (scales, mins) = scales_and_minimums::<8, GROUP>(&values, &search, &mut quants);
            for (i, (values, wanted)) in values.chunks(GROUP).zip(wanted.chunks_mut(GROUP)).enumerate() {
                let (scale, min) = scale_and_minimum(values, &search, wanted);
                prop_assert_eq!((bits(scales[i]), bits(mins[i])), (bits(scale), bits(min)), "{:?}", values);
            }
            prop_assert_eq!(quants, wanted);
        }
        let values = groups::<16>(&kinds, &noise);
        let (mut quants, mut wanted) = ([0xaa; 256], [0xaa; 256]);
        let scales = symmetric_scales::<16, 16>(&values, 32, &mut quants);
        for (i, (values, wanted)) in values.chunks(16).zip(wanted.chunks_mut(16)).enumerate() {
            prop_assert_eq!(bits(scales[i]), bits(symmetric_scale(values, 32, wanted)), "{:?}", values);
        }
        prop_assert_eq!(quants, wanted);
    }
}

/// The bits of a number; one for all that are none.
fn bits(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}

/// 256 values in groups of `N`, each of its kind and size.
fn groups<const N: usize>(kinds: &[(u8, i32)], noise: &[f32]) -> Vec<f32> {
    let value = |(i, noise): (usize, &f32)| {
        let (kind, exponent) = kinds[i / N];
        let size = 10f32.powi(exponent);
        match kind {
            0 => 0.0,
            1 => -0.0,
            2 => size,
            3 => noise.abs() * size,
            4 => -noise.abs() * size,
            5 if i % 11 == 3 => f32::NAN,
            6 if i % 13 == 5 => f32::INFINITY,
            _ => noise * size,
        }
    };
    noise.iter().enumerate().map(value).collect()
}

/// A scale and a minimum (its sign turned, never negative) with which integers from 0 come near `values`, those far from
/// 0 nearest; and the integers.
fn scale_and_minimum(values: &[f32], search: &ScaleSearch, quants: &mut [u8]) -> (f32, f32) {
    let most = f32::from(search.most);
    let sum_squares = values.iter().fold(0.0, |sum: f32, x| sum + x * x);
    let mean = (sum_squares / values.len() as f32).sqrt();
    let weight = |x: f32| mean + x.abs();
    let (mut min, mut max) = (values[0], values[0]);
    let (mut sum_w, mut sum_x) = (weight(values[0]), weight(values[0]) * values[0]);
    for &x in &values[1..] {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
        sum_w += weight(x);
        sum_x += weight(x) * x;
    }
    min = if min > 0.0 { 0.0 } else { min };
    if max == min {
        quants.fill(0);
        return (0.0, -min);
    }
    let quant = |factor: f32, min: f32, x: f32| nearest(factor * (x - min)).clamp(0.0, most);
    let error = |scale: f32, min: f32, quants: &[u8]| {
        quants.iter().zip(values).fold(0.0, |error: f32, (&quant, &x)| {
            let difference = scale * f32::from(quant) + min - x;
            error + weight(x) * (difference * difference)
        })
    };
    let factor = most / (max - min);
    let mut scale = 1.0 / factor;
    for (out, &x) in quants.iter_mut().zip(values) {
        *out = quant(factor, min, x) as u8;
    }
    let mut best = error(scale, min, quants);
    let mut tried = [0u8; GROUP];
    let tried = &mut tried[..values.len()];
    for i in 0..=search.steps {
        // From the best minimum so far.
        let factor = (search.first + search.step * f32::from(i) + most) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0f32, 0.0f32, 0.0f32);
        for (out, &x) in tried.iter_mut().zip(values) {
            let l = quant(factor, min, x);
            *out = l as u8;
            let w = weight(x);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = sum_xl / sum_l2;
            }
            let this = error(this_scale, this_min, tried);
            if this < best {
                quants.copy_from_slice(tried);
                (best, scale, min) = (this, this_scale, this_min);
            }
        }
    }
    (scale, -min)
}

/// A scale with which integers from `-limit` to `limit - 1` come near `values`, by squares; and the integers plus `limit`.
fn symmetric_scale(values: &[f32], limit: u8, quants: &mut [u8]) -> f32 {
    let limit = f32::from(limit);
    let largest =
        values.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest });
    if largest.abs() < TINY {
        quants.fill(0);
        return 0.0;
    }
    // Sums of w x l and w l l, with x x as weight w.
    let sums = |factor: f32| {
        values.iter().fold((0.0f32, 0.0f32), |(sum_lx, sum_l2), &x| {
            let l = nearest(factor * x).clamp(-limit, limit - 1.0);
            let w = x * x;
            (sum_lx + w * x * l, sum_l2 + w * l * l)
        })
    };
    let mut factor = -limit / largest;
    let (sum_lx, sum_l2) = sums(factor);
    let mut scale = if sum_l2 == 0.0 { 0.0 } else { sum_lx / sum_l2 };
    let mut best = scale * sum_lx;
    for i in (-9i8..=9).filter(|&i| i != 0) {
        let tried = -(limit + 0.1 * f32::from(i)) / largest;
        let (sum_lx, sum_l2) = sums(tried);
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            factor = tried;
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
    for (quant, x) in quants.iter_mut().zip(values) {
        *quant = (nearest(factor * x).clamp(-limit, limit - 1.0) + limit) as u8;
    }
    scale
}
