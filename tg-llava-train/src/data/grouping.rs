//! Orders that put samples of like length, and of like modality, into the same batch.
//!
//! The functions follow those of the same names in the reference's `llava_trainer.py`. Their randomness is a
//! parameter: `randperm(n)` gives a permutation of `0..n`, so that a recorded run can be replayed exactly.

use std::cmp::Reverse;

/// How samples are spread over batches: batches of `batch_size`, `chunks` of them at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grouping {
    /// Samples of one batch on one device; at least 1.
    pub batch_size: usize,
    /// Batches that are worked on together and so should cost alike: devices x accumulation steps; at least 1
    /// (`world_size` in the reference).
    pub chunks: usize,
}

impl Grouping {
    fn megabatch(self) -> usize {
        (self.batch_size * self.chunks).max(1)
    }
}

/// A random order whose consecutive batches hold samples of like length.
///
/// `lengths` are the samples' lengths. The order is random across runs of `batch_size * chunks` samples
/// and by falling length inside one, dealt out so that its batches have about the same sum.
pub fn length_grouped_indices(
    lengths: &[i64],
    grouping: Grouping,
    randperm: &mut impl FnMut(usize) -> Vec<usize>,
) -> Vec<usize> {
    let indices = randperm(lengths.len());
    debug_assert_eq!(indices.len(), lengths.len(), "randperm must give a permutation");
    let mut order = Vec::with_capacity(lengths.len());
    for megabatch in indices.chunks(grouping.megabatch()) {
        let mut megabatch = megabatch.to_vec();
        megabatch.sort_by_key(|&index| Reverse(lengths[index]));
        order.extend(split_to_even_chunks(&megabatch, lengths, grouping.chunks).into_iter().flatten());
    }
    order
}

/// A random order whose batches are all pictures or all text, and of like length.
///
/// `lengths` are positive for samples with a picture and negative for text. Only what does not fill the last
/// `batch_size * chunks` of either kind is mixed, at the very end and in the order of the file. As in the
/// reference, a set of one modality falls back to [`length_grouped_indices`] with the lengths as they are,
/// so that a text-only set runs by rising instead of falling length. A length of 0 (which the reference
/// refuses) counts as text: a sample with a picture has at least the word `<image>`.
pub fn modality_length_grouped_indices(
    lengths: &[i64],
    grouping: Grouping,
    randperm: &mut impl FnMut(usize) -> Vec<usize>,
) -> Vec<usize> {
    let (pictures, texts): (Vec<usize>, Vec<usize>) = (0..lengths.len()).partition(|&i| lengths[i] > 0);
    if pictures.is_empty() || texts.is_empty() {
        return length_grouped_indices(lengths, grouping, randperm);
    }
    let mut megabatches = Vec::new();
    let mut rest = Vec::new();
    for members in [pictures, texts] {
        let own_lengths: Vec<i64> = members.iter().map(|&i| lengths[i].abs()).collect();
        let order: Vec<usize> = length_grouped_indices(&own_lengths, grouping, randperm)
            .into_iter()
            .map(|i| members[i])
            .collect();
        // The last one is put aside even where it is full.
        let mut own: Vec<Vec<usize>> = order.chunks(grouping.megabatch()).map(<[usize]>::to_vec).collect();
        rest.extend(own.pop().unwrap_or_default());
        megabatches.extend(own);
    }
    let mut order = Vec::with_capacity(lengths.len());
    for at in randperm(megabatches.len()) {
        order.extend_from_slice(&megabatches[at]);
    }
    rest.sort_unstable();
    order.extend(rest);
    order
}

/// Deals `indices` out into `chunks` lists of equal count and about equal sum of `lengths`: each goes to the
/// list with the smallest sum so far that is not full. Where the count does not divide, every `chunks`-th
/// index goes into the same list instead.
pub fn split_to_even_chunks(indices: &[usize], lengths: &[i64], chunks: usize) -> Vec<Vec<usize>> {
    let chunks = chunks.max(1);
    if !indices.len().is_multiple_of(chunks) {
        return (0..chunks)
            .map(|first| indices.iter().copied().skip(first).step_by(chunks).collect())
            .collect();
    }
    let full = indices.len() / chunks;
    let mut lists = vec![Vec::with_capacity(full); chunks];
    let mut sums = vec![0i64; chunks];
    for &index in indices {
        let open = (0..chunks).filter(|&at| lists[at].len() < full).min_by_key(|&at| sums[at]);
        if let Some(at) = open {
            lists[at].push(index);
            sums[at] += lengths[index];
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::random::Permutations;
    use proptest::prelude::*;

    /// Replays recorded permutations.
    fn recorded(permutations: &[&[usize]]) -> impl FnMut(usize) -> Vec<usize> {
        let mut left: Vec<Vec<usize>> = permutations.iter().rev().map(|p| p.to_vec()).collect();
        move |n| {
            let next = left.pop().unwrap();
            assert_eq!(next.len(), n);
            next
        }
    }

    #[test]
    fn recorded_runs_of_the_reference_come_out_exactly() {
        let two_by_two = Grouping { batch_size: 2, chunks: 2 };
        let found = length_grouped_indices(
            &[5, 9, 2, 7, 3, 8, 1, 6],
            two_by_two,
            &mut recorded(&[&[7, 1, 2, 4, 0, 6, 5, 3]]),
        );
        assert_eq!(found, [1, 2, 7, 4, 5, 6, 3, 0]);

        let found = modality_length_grouped_indices(
            &[5, -9, 2, -7, 3, 8, -1, 6, -4, 10, 11, -12],
            two_by_two,
            &mut recorded(&[&[1, 0, 6, 3, 4, 5, 2], &[3, 2, 1, 0, 4], &[1, 0]]),
        );
        assert_eq!(found, [1, 6, 3, 8, 10, 2, 5, 0, 4, 7, 9, 11]);

        let found = modality_length_grouped_indices(
            &[3, 1, 4, 1, 5, 9, 2, 6, 5, 3],
            Grouping { batch_size: 4, chunks: 1 },
            &mut recorded(&[&[9, 0, 4, 3, 2, 5, 8, 6, 1, 7]]),
        );
        assert_eq!(found, [4, 9, 0, 3, 5, 8, 2, 6, 7, 1]);
    }

    #[test]
    fn chunks_that_do_not_divide_are_strided() {
        assert_eq!(split_to_even_chunks(&[4, 3, 2, 1, 0], &[1; 5], 2), [vec![4, 2, 0], vec![3, 1]]);
        assert_eq!(split_to_even_chunks(&[0], &[1], 3), [vec![0], vec![], vec![]]);
    }

    fn lengths() -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec(
            (1i64..400, any::<bool>()).prop_map(|(l, text)| if text { -l } else { l }),
            0..200,
        )
    }

    proptest! {
        #[test]
        fn orders_are_permutations(
            lengths in lengths(), batch_size in 1usize..9, chunks in 1usize..5, seed: u64,
        ) {
            let grouping = Grouping { batch_size, chunks };
            let mut permutations = Permutations::new(seed, 0);
            let mut randperm = |n| permutations.permutation(n);
            for mut order in [
                length_grouped_indices(&lengths, grouping, &mut randperm),
                modality_length_grouped_indices(&lengths, grouping, &mut randperm),
            ] {
                order.sort_unstable();
                prop_assert!(order.into_iter().eq(0..lengths.len()));
            }
        }

        #[test]
        fn only_the_tail_mixes_modalities(
            lengths in lengths(), batch_size in 1usize..9, chunks in 1usize..5, seed: u64,
        ) {
            let mut permutations = Permutations::new(seed, 0);
            let grouping = Grouping { batch_size, chunks };
            let order = modality_length_grouped_indices(&lengths, grouping, &mut |n| permutations.permutation(n));
            let megabatches: Vec<_> = order.chunks(batch_size * chunks).collect();
            let mixed = |m: &[usize]| m.iter().any(|&i| lengths[i] > 0) && m.iter().any(|&i| lengths[i] < 0);
            let first_mixed = megabatches.iter().position(|m| mixed(m)).unwrap_or(megabatches.len());
            prop_assert!(first_mixed + 2 >= megabatches.len(), "mixed from {} of {}", first_mixed, megabatches.len());
        }

        #[test]
        fn a_full_megabatch_has_even_batches(
            lengths in prop::collection::vec(1i64..100, 12), seed: u64,
        ) {
            let mut permutations = Permutations::new(seed, 0);
            let order = length_grouped_indices(
                &lengths, Grouping { batch_size: 4, chunks: 3 }, &mut |n| permutations.permutation(n),
            );
            let sums: Vec<i64> = order.chunks(4).map(|b| b.iter().map(|&i| lengths[i]).sum()).collect();
            let spread = sums.iter().max().unwrap() - sums.iter().min().unwrap();
            prop_assert!(spread <= 2 * lengths.iter().max().unwrap(), "sums {:?}", sums);
            prop_assert!(order.chunks(4).all(|b| b.windows(2).all(|w| lengths[w[0]] >= lengths[w[1]])));
        }
    }
}
