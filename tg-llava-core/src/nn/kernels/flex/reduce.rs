//! Sums, maxima and dot products in vector registers.

use pulp::{Simd, as_arrays};

/// Independent sums, so that the processor need not wait for one addition before the next.
const CHAINS: usize = 4;

/// The sum of `a[i] * b[i]`.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let ((a_blocks, a), (b_blocks, b)) = (as_arrays::<CHAINS, _>(a), as_arrays::<CHAINS, _>(b));
    let zero = simd.splat_f32s(0.0);
    let [mut sum0, mut sum1, mut sum2, mut sum3] = [zero; CHAINS];
    for ([a0, a1, a2, a3], [b0, b1, b2, b3]) in a_blocks.iter().zip(b_blocks) {
        sum0 = simd.mul_add_e_f32s(*a0, *b0, sum0);
        sum1 = simd.mul_add_e_f32s(*a1, *b1, sum1);
        sum2 = simd.mul_add_e_f32s(*a2, *b2, sum2);
        sum3 = simd.mul_add_e_f32s(*a3, *b3, sum3);
    }
    for (a, b) in a.iter().zip(b) {
        sum0 = simd.mul_add_e_f32s(*a, *b, sum0);
    }
    let sum = simd.add_f32s(simd.add_f32s(sum0, sum1), simd.add_f32s(sum2, sum3));
    simd.reduce_sum_f32s(sum) + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
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
