//! The searches for the scales of groups that lose least; sums in the order of llama.cpp's `make_qkx2_quants` and
//! `make_qx_quants`, so that its bits come out.

use super::lanes::Lanes;

/// Groups whose values are all below this are zeros.
pub(super) const TINY: f32 = 1e-15;

/// Which scales [`scales_and_minimums`] tries: `most + first + step * i` steps over the range of the values.
pub(super) struct ScaleSearch {
    /// The largest integer.
    pub most: u8,
    pub first: f32,
    pub step: f32,
    /// The last `i`.
    pub steps: u8,
}

/// For each of `L` groups of `N` values a scale and a minimum (its sign turned, never negative) with which integers from 0 come
/// near the values, those far from 0 nearest; and the integers.
#[inline(always)]
pub(super) fn scales_and_minimums<const L: usize, const N: usize>(
    values: &[f32],
    search: &ScaleSearch,
    quants: &mut [u8],
) -> ([f32; L], [f32; L]) {
    let (zero, most) = (Lanes::<L>::all(0.0), f32::from(search.most));
    let x: [_; N] = Lanes::of_groups(values);
    let mut sum_squares = zero;
    for &x in &x {
        sum_squares = sum_squares + x * x;
    }
    let mean = (sum_squares / Lanes::all(N as f32)).sqrt();
    let mut weights = [zero; N];
    for (weight, &x) in weights.iter_mut().zip(&x) {
        *weight = mean + x.abs();
    }
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (weights[0], weights[0] * x[0]);
    for (&weight, &x) in weights.iter().zip(&x).skip(1) {
        min = x.if_less(min, x, min);
        max = max.if_less(x, x, max);
        sum_w = sum_w + weight;
        sum_x = sum_x + weight * x;
    }
    min = zero.if_less(min, zero, min);
    let (least, greatest) = (min, max);
    let group = Group { x: &x, weights: &weights };

    let mut tried = [zero; N];
    let mut chosen = Choice { factor: Lanes::all(most) / (max - min), from: min };
    let mut scale = Lanes::all(1.0) / chosen.factor;
    for (l, &x) in tried.iter_mut().zip(&x) {
        let whole = chosen.quant(x, most);
        *l = zero.if_less(whole, whole, zero);
    }
    let mut best = group.error(scale, min, &tried);
    for i in 0..=search.steps {
        // From the best minimum so far.
        let factor = Lanes::all(search.first + search.step * f32::from(i) + most) / (max - min);
        let choice = Choice { factor, from: min };
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        for (tried, (&x, &weight)) in tried.iter_mut().zip(x.iter().zip(&weights)) {
            let l = choice.quant(x, most);
            *tried = l;
            sum_l = sum_l + weight * l;
            sum_l2 = sum_l2 + weight * l * l;
            sum_xl = sum_xl + weight * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        let this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        let this_scale = zero.if_less(this_min, sum_xl / sum_l2, this_scale);
        let this_min = zero.if_less(this_min, zero, this_min);
        let this = group.error(this_scale, this_min, &tried);
        let this = zero.if_less(determinant, this, Lanes::all(f32::NAN));
        chosen.factor = this.if_less(best, factor, chosen.factor);
        chosen.from = this.if_less(best, min, chosen.from);
        scale = this.if_less(best, this_scale, scale);
        min = this.if_less(best, this_min, min);
        best = this.if_less(best, this, best);
    }

    for (i, &x) in x.iter().enumerate() {
        for (group, l) in chosen.quant(x, most).0.into_iter().enumerate() {
            quants[N * group + i] = l as u8;
        }
    }
    let mut mins = [0.0; L];
    for group in 0..L {
        mins[group] = -min.0[group];
        if greatest.0[group] == least.0[group] {
            quants[N * group..N * (group + 1)].fill(0);
            (scale.0[group], mins[group]) = (0.0, -least.0[group]);
        }
    }
    (scale.0, mins)
}

/// How values become integers.
struct Choice<const L: usize> {
    factor: Lanes<L>,
    from: Lanes<L>,
}

impl<const L: usize> Choice<L> {
    #[inline(always)]
    fn quant(&self, x: Lanes<L>, most: f32) -> Lanes<L> {
        (self.factor * (x - self.from)).nearest(0.0, most)
    }
}

struct Group<'a, const L: usize, const N: usize> {
    x: &'a [Lanes<L>; N],
    weights: &'a [Lanes<L>; N],
}

impl<const L: usize, const N: usize> Group<'_, L, N> {
    /// What integers lose, weighted.
    #[inline(always)]
    fn error(&self, scale: Lanes<L>, min: Lanes<L>, quants: &[Lanes<L>; N]) -> Lanes<L> {
        let mut error = Lanes::all(0.0);
        for ((&x, &weight), &quant) in self.x.iter().zip(self.weights).zip(quants) {
            let difference = scale * quant + min - x;
            error = error + weight * (difference * difference);
        }
        error
    }
}

/// For each of `L` groups of `N` values a scale with which integers from `-limit` to `limit - 1` come near the values, by squares; and
/// the integers plus `limit`.
#[inline(always)]
pub(super) fn symmetric_scales<const L: usize, const N: usize>(
    values: &[f32],
    limit: u8,
    quants: &mut [u8],
) -> [f32; L] {
    let (zero, limit) = (Lanes::<L>::all(0.0), f32::from(limit));
    let x: [_; N] = Lanes::of_groups(values);
    let mut largest = zero;
    // With x x as weight w.
    let (mut w, mut wx) = ([zero; N], [zero; N]);
    for ((w, wx), &x) in w.iter_mut().zip(&mut wx).zip(&x) {
        largest = largest.abs().if_less(x.abs(), x, largest);
        *w = x * x;
        *wx = *w * x;
    }
    let mut factor = Lanes::all(-limit) / largest;
    let (mut scale, mut best) = (zero, zero);
    // First the largest value at the end of the range, then more and less than that.
    for i in [0].into_iter().chain((-9i8..=9).filter(|&i| i != 0)) {
        let tried = Lanes::all(-(limit + 0.1 * f32::from(i))) / largest;
        let (mut sum_lx, mut sum_l2) = (zero, zero);
        for ((&w, &wx), &x) in w.iter().zip(&wx).zip(&x) {
            let l = (tried * x).nearest(-limit, limit - 1.0);
            sum_lx = sum_lx + wx * l;
            sum_l2 = sum_l2 + w * l * l;
        }
        let this = sum_lx / sum_l2;
        if i == 0 {
            for lane in 0..L {
                scale.0[lane] = if sum_l2.0[lane] == 0.0 { 0.0 } else { this.0[lane] };
            }
            best = scale * sum_lx;
            continue;
        }
        let (gain, least) = (sum_lx * sum_lx, zero.if_less(sum_l2, best * sum_l2, Lanes::all(f32::NAN)));
        factor = least.if_less(gain, tried, factor);
        scale = least.if_less(gain, this, scale);
        best = least.if_less(gain, this * sum_lx, best);
    }
    for (i, &x) in x.iter().enumerate() {
        for (group, l) in (factor * x).nearest(-limit, limit - 1.0).0.into_iter().enumerate() {
            quants[N * group + i] = (l + limit) as u8;
        }
    }
    for group in 0..L {
        if largest.0[group].abs() < TINY {
            quants[N * group..N * (group + 1)].fill(0);
            scale.0[group] = 0.0;
        }
    }
    scale.0
}
