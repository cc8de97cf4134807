//! Random numbers that are the same on every machine and in every version.

use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};

/// Draws thrown away so that near seeds have nothing in common.
const WARM_UP: usize = 64;

/// A stream of random numbers, a function of what it is for.
///
/// xoshiro256++ with a fixed use of its output, as in [`Permutations`](tg_llava_train::data::Permutations): what is
/// written may not change with a version of a library.
#[derive(Debug)]
pub(super) struct Draws {
    rng: Xoshiro256PlusPlus,
}

impl Draws {
    /// The stream for one copy of one picture.
    pub fn for_copy(picture: u64, copy: usize) -> Self {
        Self::new(0, picture, copy as u64)
    }

    /// The stream for a curriculum.
    pub fn for_curriculum() -> Self {
        Self::new(1, 0, 0)
    }

    fn new(purpose: u8, picture: u64, copy: u64) -> Self {
        let mut seed = [0x9e; 32];
        seed[0] = purpose;
        seed[8..16].copy_from_slice(&picture.to_le_bytes());
        seed[16..24].copy_from_slice(&copy.to_le_bytes());
        let mut rng = Xoshiro256PlusPlus::from_seed(seed);
        for _ in 0..WARM_UP {
            rng.next_u64();
        }
        Self { rng }
    }

    /// A number under `bound`; the bias of the multiplication is at most `bound / 2^64`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.rng.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Whether something happens that does so `percent` times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten(mut draws: Draws) -> Vec<usize> {
        (0..10).map(|_| draws.below(100)).collect()
    }

    #[test]
    fn the_streams_never_change() {
        assert_eq!(ten(Draws::for_copy(12, 3)), [63, 43, 71, 22, 5, 69, 77, 15, 53, 51]);
        assert_eq!(ten(Draws::for_curriculum()), [38, 3, 42, 34, 58, 79, 33, 23, 57, 5]);
        for other in [Draws::for_copy(3, 12), Draws::for_copy(12, 4), Draws::for_copy(13, 3)] {
            assert_ne!(ten(other), ten(Draws::for_copy(12, 3)));
        }
    }

    #[test]
    fn every_number_is_equally_likely() {
        let mut draws = Draws::for_curriculum();
        let (mut counts, mut happened) = ([0u32; 5], 0u32);
        for _ in 0..10_000 {
            counts[draws.below(5)] += 1;
            happened += u32::from(draws.chance(20));
        }
        // 2000 expected, standard deviation 40.
        assert!(counts.iter().all(|count| count.abs_diff(2000) < 200), "{counts:?}");
        assert!(happened.abs_diff(2000) < 200, "{happened}");
    }
}
