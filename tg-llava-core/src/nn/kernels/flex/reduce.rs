//! Sums, maxima and dot products in vector registers.

use pulp::{Simd, as_arrays};
use tg_llava_x86::prefetch;

use super::half::Number;
use super::{AHEAD, LINE};

/// Independent sums, so that the processor need not wait for one addition before the next.
pub(super) const CHAINS: usize = 4;

/// The sum of `a[i] * b[i]`.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let [[sum]] = dots::<S, f32, 1, 1, CHAINS>(simd, [a], [b]);
    sum
}

/// The sums of `a[r][i] * b[c][i]`, each made of `K` independent ones in the same order, so that each value is loaded once for several
/// sums. All slices are of one length.
#[inline(always)]
pub(super) fn dots<S: Simd, N: Number<S>, const R: usize, const C: usize, const K: usize>(
    simd: S,
    a: [&[f32]; R],
    b: [&[N]; C],
) -> [[f32; C]; R] {
    let vectors = a[0].len() / S::F32_LANES;
    let blocks = vectors / K;
    let a_vectors = a.map(|a| &S::as_simd_f32s(a).0[..vectors]);
    let b_vectors = b.map(|b| &N::vectors(b)[..vectors]);
    let a_blocks = a_vectors.map(|a| &as_arrays::<K, _>(a).0[..blocks]);
    let b_blocks = b_vectors.map(|b| &as_arrays::<K, _>(b).0[..blocks]);
    let ahead = AHEAD / size_of::<N::Vector>();
    let in_a_line = (LINE / size_of::<N::Vector>()).max(1);
    // Loops and no closures, which would not be compiled for the wide registers.
    let mut sums = [[[simd.splat_f32s(0.0); K]; C]; R];
    for i in 0..blocks {
        for chain in 0..K {
            let mut b = [simd.splat_f32s(0.0); C];
            for c in 0..C {
                if chain % in_a_line == 0 {
                    prefetch(b_vectors[c], i * K + chain + ahead);
                }
                b[c] = N::widen(simd, b_blocks[c][i][chain]);
            }
            for r in 0..R {
                let a = a_blocks[r][i][chain];
                for c in 0..C {
                    sums[r][c][chain] = simd.mul_add_e_f32s(a, b[c], sums[r][c][chain]);
                }
            }
        }
    }
    for i in blocks * K..vectors {
        for r in 0..R {
            for c in 0..C {
                let b = N::widen(simd, b_vectors[c][i]);
                sums[r][c][0] = simd.mul_add_e_f32s(a_vectors[r][i], b, sums[r][c][0]);
            }
        }
    }
    let done = vectors * S::F32_LANES;
    let mut totals = [[0.0; C]; R];
    for r in 0..R {
        for c in 0..C {
            let mut chains = K;
            while chains > 1 {
                chains /= 2;
                for k in 0..chains {
                    sums[r][c][k] = simd.add_f32s(sums[r][c][k], sums[r][c][k + chains]);
                }
            }
            let rest = a[r][done..].iter().zip(&b[c][done..]).map(|(a, b)| a * b.to_f32()).sum::<f32>();
            totals[r][c] = simd.reduce_sum_f32s(sums[r][c][0]) + rest;
        }
    }
    totals
}

/// The sum of `values`.
#[inline(always)]
pub(super) fn sum<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(values);
    let (blocks, vectors) = as_arrays::<2, _>(vectors);
    let [mut even, mut odd] = [simd.splat_f32s(0.0); 2];
    for [a, b] in blocks {
        even = simd.add_f32s(even, *a);
        odd = simd.add_f32s(odd, *b);
    }
    for a in vectors {
        even = simd.add_f32s(even, *a);
    }
    simd.reduce_sum_f32s(simd.add_f32s(even, odd)) + rest.iter().sum::<f32>()
}

/// The largest of `values`.
#[inline(always)]
pub(super) fn max<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(values);
    let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
    for vector in vectors {
        largest = simd.max_f32s(largest, *vector);
    }
    rest.iter().fold(simd.reduce_max_f32s(largest), |a, &b| a.max(b))
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    struct All<'a>(&'a [f32]);

    impl WithSimd for All<'_> {
        type Output = [f32; 3];

        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            [sum(simd, self.0), max(simd, self.0), dot(simd, self.0, self.0)]
        }
    }

    #[test]
    fn of_whole_numbers_are_exact() {
        for len in [1, 5, 16, 37, 64, 150] {
            let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let sum: f32 = values.iter().sum();
            let squares: f32 = values.iter().map(|x| x * x).sum();
            assert_eq!(Arch::new().dispatch(All(&values)), [sum, (len - 1) as f32, squares], "{len}");
        }
    }
}
