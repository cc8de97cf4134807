use std::ops::Range;

use burn::tensor::Tensor;

/// Values that belong together in sums and in slices.
pub const ROW: usize = 4096;

/// How a parameter's values are shared out: in slices of equal length, whole rows of 4,096 values, with zeros after the last value.
///
/// One rank alone has them as they are, without zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardLayout {
    /// Values of the parameter.
    pub count: usize,
    /// Ranks that share them.
    pub ranks: usize,
}

impl ShardLayout {
    /// Values of each rank's slice, zeros included.
    pub fn len(self) -> usize {
        match self.ranks {
            0 | 1 => self.count,
            ranks => ROW * self.count.div_ceil(ROW * ranks),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Values of all slices together.
    pub fn padded(self) -> usize {
        self.len() * self.ranks.max(1)
    }

    /// The parameter's values that `rank` has; none where only zeros are left for it.
    pub fn range(self, rank: usize) -> Range<usize> {
        let at = |rank: usize| (rank * self.len()).min(self.count);
        at(rank)..at(rank + 1)
    }

    /// What `rank` has of `values`.
    ///
    /// # Shapes
    /// - values: `[count]`
    /// - output: `[len]`
    pub fn slice(self, values: &Tensor<1>, rank: usize) -> Tensor<1> {
        if self.ranks <= 1 {
            return values.clone();
        }
        let zeros = |count: usize| Tensor::zeros([count], (&values.device(), values.dtype()));
        let range = self.range(rank);
        match (range.len(), self.len() - range.len()) {
            (0, rest) => zeros(rest),
            (some, 0) => values.clone().narrow(0, range.start, some),
            (some, rest) => Tensor::cat(vec![values.clone().narrow(0, range.start, some), zeros(rest)], 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slices_cover_every_value_once_in_whole_rows(count in 0usize..100_000, ranks in 1usize..17) {
            let layout = ShardLayout { count, ranks };
            let ranges: Vec<_> = (0..ranks).map(|rank| layout.range(rank)).collect();
            prop_assert!(ranges.iter().cloned().flatten().eq(0..count));
            prop_assert!(layout.padded() >= count);
            if ranks > 1 {
                prop_assert!(layout.len().is_multiple_of(ROW));
                prop_assert!(ranges.iter().all(|r| r.is_empty() || r.start.is_multiple_of(ROW)));
                prop_assert!(layout.padded() < count + ROW * ranks);
            }
        }
    }
}
