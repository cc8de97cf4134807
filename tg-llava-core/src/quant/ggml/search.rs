//! The searches for the scale of a group that loses least; sums in the order of llama.cpp's `make_qkx2_quants` and
//! `make_qx_quants`, so that its bits come out.

use super::block::nearest;

/// Groups whose values are all below this are zeros.
pub(super) const TINY: f32 = 1e-15;

/// Which scales [`scale_and_minimum`] tries: `most + first + step * i` steps over the range of the values.
pub(super) struct ScaleSearch {
    /// The largest integer.
    pub most: u8,
    pub first: f32,
    pub step: f32,
    /// The last `i`.
    pub steps: u8,
}

/// A scale and a minimum (its sign turned, never negative) with which integers from 0 come near `values`, those far from
/// 0 nearest; and the integers.
pub(super) fn scale_and_minimum(values: &[f32], search: &ScaleSearch, quants: &mut [u8]) -> (f32, f32) {
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
    let mut tried = [0u8; super::GROUP];
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
pub(super) fn symmetric_scale(values: &[f32], limit: u8, quants: &mut [u8]) -> f32 {
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
