//! Random permutations that are the same on every machine and in every version.

use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};

/// Draws thrown away so that near seeds have nothing in common.
const WARM_UP: usize = 64;

/// A stream of permutations, a function of a seed and an epoch.
///
/// xoshiro256++ with a fixed use of its output: unlike `StdRng` and `shuffle`, neither may change with a
/// version of a library, so an old run resumes in the same order. The orders are not torch's.
#[derive(Debug, Clone)]
pub struct Permutations {
    rng: Xoshiro256PlusPlus,
}

impl Permutations {
    /// The stream of `seed` and `epoch`.
    pub fn new(seed: u64, epoch: u64) -> Self {
        let mut bytes = [0x9e; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&epoch.to_le_bytes());
        let mut rng = Xoshiro256PlusPlus::from_seed(bytes);
        for _ in 0..WARM_UP {
            rng.next_u64();
        }
        Self { rng }
    }

    /// The stream's next permutation of `0..n` (Fisher and Yates's shuffle).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last as u64 + 1) as usize);
        }
        order
    }

    /// A number under `bound`; the bias of the multiplication is at most `bound / 2^64`.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.rng.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_stream_never_changes() {
        let mut permutations = Permutations::new(42, 1);
        assert_eq!(permutations.permutation(8), [1, 5, 0, 4, 6, 7, 3, 2]);
        assert_ne!(Permutations::new(42, 2).permutation(8), Permutations::new(42, 1).permutation(8));
        assert_ne!(Permutations::new(43, 1).permutation(8), Permutations::new(42, 1).permutation(8));
    }

    #[test]
    fn every_place_is_equally_likely() {
        let mut permutations = Permutations::new(0, 0);
        let mut counts = [[0u32; 5]; 5];
        for _ in 0..10_000 {
            for (place, value) in permutations.permutation(5).into_iter().enumerate() {
                counts[place][value] += 1;
            }
        }
        // 2000 expected, standard deviation 40.
        assert!(counts.iter().flatten().all(|count| count.abs_diff(2000) < 200), "{counts:?}");
    }

    proptest! {
        #[test]
        fn each_is_a_permutation(seed: u64, epoch: u64, n in 0usize..300) {
            let mut order = Permutations::new(seed, epoch).permutation(n);
            order.sort_unstable();
            prop_assert!(order.into_iter().eq(0..n));
        }
    }
}
