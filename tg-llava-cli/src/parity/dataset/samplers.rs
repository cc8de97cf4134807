//! Samplers, replayed with the permutations that the reference drew.

use std::collections::VecDeque;

use serde::Deserialize;
use tg_llava_train::data::{Grouping, length_grouped_indices, modality_length_grouped_indices};

use super::super::report::Row;

/// One run of a sampler, with the permutations that it drew.
#[derive(Deserialize)]
pub(super) struct RecordedSampler {
    function: String,
    lengths: Vec<i64>,
    batch_size: usize,
    world_size: usize,
    randperms_in_call_order: VecDeque<Vec<usize>>,
    indices: Vec<usize>,
}

impl RecordedSampler {
    pub fn compare(&self, at: usize) -> Row {
        let group = format!("sampler {at} {}", self.function);
        let grouping = Grouping { batch_size: self.batch_size, chunks: self.world_size };
        let mut left = self.randperms_in_call_order.clone();
        let mut misfit = None;
        let mut randperm = |n: usize| match left.pop_front() {
            Some(recorded) if recorded.len() == n => recorded,
            other => {
                misfit.get_or_insert(format!("a permutation of {n} is drawn, recorded is {other:?}"));
                (0..n).collect()
            }
        };
        let ours = match self.function.as_str() {
            "length_grouped" => length_grouped_indices(&self.lengths, grouping, &mut randperm),
            "modality_length_grouped" => {
                modality_length_grouped_indices(&self.lengths, grouping, &mut randperm)
            }
            _ => return Row::exact(group, 0, Some("no sampler of this name".into())),
        };
        let difference = misfit
            .or_else(|| (ours != self.indices).then(|| format!("{ours:?}, expected {:?}", self.indices)))
            .or_else(|| (!left.is_empty()).then(|| format!("{} recorded permutations are left", left.len())));
        Row::exact(group, self.indices.len(), difference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_that_draws_otherwise_fails() {
        let mut recorded = RecordedSampler {
            function: "length_grouped".into(),
            lengths: vec![3, 1, 2],
            batch_size: 3,
            world_size: 1,
            randperms_in_call_order: [vec![1, 0, 2]].into(),
            indices: vec![0, 2, 1],
        };
        assert!(!recorded.compare(0).failed());
        recorded.indices.swap(0, 1);
        assert!(recorded.compare(0).failed());
        recorded.randperms_in_call_order.clear();
        assert!(recorded.compare(0).failed());
        recorded.function = "other".into();
        assert!(recorded.compare(0).failed());
    }
}
