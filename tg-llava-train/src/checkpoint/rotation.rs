use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::CheckpointError;

/// What was deleted to keep to the limit.
#[derive(Debug, Default)]
pub struct Rotation {
    /// Checkpoints that are gone.
    pub removed: Vec<PathBuf>,
    /// Why others that should have gone are still there, or why none could be chosen.
    pub problems: Vec<CheckpointError>,
}

/// Which of `oldest_first` are too many: the oldest, but never the last one nor the best.
///
/// The best counts towards `keep`; where `keep` is 1 and the best is not the newest, both are kept, as by the
/// HF Trainer.
pub(super) fn beyond_limit(oldest_first: &[usize], keep: NonZeroUsize, best: Option<usize>) -> Vec<usize> {
    let excess = oldest_first.len().saturating_sub(keep.get());
    let newest = oldest_first.last().copied();
    let may_go = |step: &usize| Some(*step) != newest && Some(*step) != best;
    oldest_first.iter().copied().filter(may_go).take(excess).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn limit(keep: usize) -> NonZeroUsize {
        NonZeroUsize::new(keep).unwrap()
    }

    #[test]
    fn cases_of_the_trainer() {
        assert_eq!(beyond_limit(&[10, 20, 30], limit(2), None), [10]);
        assert_eq!(beyond_limit(&[10, 20, 30], limit(2), Some(10)), [20]);
        assert_eq!(beyond_limit(&[10, 20, 30], limit(1), Some(10)), [20]);
        assert_eq!(beyond_limit(&[10, 20, 30], limit(1), Some(30)), [10, 20]);
        assert_eq!(beyond_limit(&[10, 20, 30], limit(3), Some(10)), [0usize; 0]);
    }

    proptest! {
        #[test]
        fn the_newest_and_the_best_stay_and_older_ones_go_first(
            steps in prop::collection::btree_set(0usize..100, 0..12), keep in 1usize..6, at in 0usize..20,
        ) {
            let steps: Vec<_> = steps.into_iter().collect();
            let best = steps.get(at).copied();
            let gone: BTreeSet<_> = beyond_limit(&steps, limit(keep), best).into_iter().collect();
            let kept: Vec<_> = steps.iter().copied().filter(|step| !gone.contains(step)).collect();
            prop_assert!(gone.iter().all(|step| steps.contains(step)));
            prop_assert_eq!(kept.last(), steps.last());
            prop_assert!(best.is_none_or(|best| kept.contains(&best)));
            let both = best.is_some() && best != steps.last().copied();
            let room = if both { keep.max(2) } else { keep };
            prop_assert_eq!(kept.len(), steps.len().min(room));
            let oldest_kept = kept.iter().find(|step| Some(**step) != best);
            prop_assert!(gone.iter().all(|gone| oldest_kept.is_none_or(|kept| gone < kept)));
        }
    }
}
