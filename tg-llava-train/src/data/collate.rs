//! Several samples as one batch.

use tg_llava_core::nn::IGNORE_INDEX;

use super::example::Example;

/// The samples of one step, each with its own length: padding is for whoever needs it.
///
/// The model pads after the pictures' features are spliced in, and masks what it pads. [`Self::padded`] is the
/// reference's own form, padded before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// The samples, in the sampler's order.
    pub examples: Vec<Example>,
}

/// Rows padded on the right to the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaddedText {
    /// Token ids, `[batch][length]`.
    pub input_ids: Vec<Vec<i64>>,
    /// Labels, `[batch][length]`; [`IGNORE_INDEX`] on padding.
    pub labels: Vec<Vec<i64>>,
    /// `true` where an id belongs to the sample. The reference writes `ids != pad_id` instead, which also hides
    /// an id of the text that happens to be the padding's.
    pub attention_mask: Vec<Vec<bool>>,
}

impl Batch {
    /// Whether there is no sample: all of a batch's samples may have been skipped.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Whether any id of any sample is learned; the loss of a batch without one is not a number.
    pub fn has_target(&self) -> bool {
        self.examples.iter().any(Example::has_target)
    }

    /// The number of ids of all samples, a picture counting as one.
    pub fn tokens(&self) -> usize {
        self.examples.iter().map(|example| example.input_ids.len()).sum()
    }

    /// Guide ids of each sample, for [`GuideTokenizer::pad`](tg_llava_core::tokenizer::GuideTokenizer::pad).
    pub fn guide_rows(&self) -> Vec<Vec<i64>> {
        self.examples.iter().map(|example| example.guide_ids.clone()).collect()
    }

    /// Ids, labels and mask padded on the right with `pad_id`, as the reference's collator returns them.
    pub fn padded(&self, pad_id: i64) -> PaddedText {
        let length = self.examples.iter().map(|example| example.input_ids.len()).max().unwrap_or(0);
        let pad = |row: &[i64], filler: i64| {
            let mut row = row.to_vec();
            row.resize(length, filler);
            row
        };
        let rows = || self.examples.iter();
        PaddedText {
            input_ids: rows().map(|example| pad(&example.input_ids, pad_id)).collect(),
            labels: rows().map(|example| pad(&example.labels, IGNORE_INDEX)).collect(),
            attention_mask: rows()
                .map(|example| (0..length).map(|at| at < example.input_ids.len()).collect())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(input_ids: &[i64], labels: &[i64]) -> Example {
        Example {
            index: 0,
            id: "a".into(),
            input_ids: input_ids.to_vec(),
            labels: labels.to_vec(),
            guide_ids: vec![7, 8],
            pictures: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn rows_are_padded_on_the_right_and_their_own_ids_stay_visible() {
        let examples = vec![example(&[1, 0, 5], &[-100, 0, 5]), example(&[2], &[-100])];
        let batch = Batch { examples };
        let padded = batch.padded(0);
        assert_eq!(padded.input_ids, [[1, 0, 5], [2, 0, 0]]);
        assert_eq!(padded.labels, [[-100, 0, 5], [-100, -100, -100]]);
        assert_eq!(padded.attention_mask, [[true, true, true], [true, false, false]]);
        assert_eq!((batch.tokens(), batch.guide_rows().len()), (4, 2));
    }

    #[test]
    fn a_batch_without_targets_says_so() {
        assert!(!Batch::default().has_target());
        assert!(Batch::default().is_empty());
        let masked = example(&[1], &[-100]);
        assert!(!Batch { examples: vec![masked.clone()] }.has_target());
        assert!(Batch { examples: vec![masked, example(&[1], &[1])] }.has_target());
    }
}
