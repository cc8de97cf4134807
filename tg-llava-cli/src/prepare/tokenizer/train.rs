//! Byte-pair merges learned from texts.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, Result as TkResult, Trainer};

use super::Texts;
use crate::prepare::PrepareError;

/// The tokens to begin with and the size to end with.
#[derive(Debug)]
pub(super) struct Plan {
    /// The first ids: special tokens and single bytes.
    pub base: Vec<String>,
    /// Most tokens, the base included.
    pub vocab_size: usize,
    /// What ends the last token of each word.
    pub word_end: Option<&'static str>,
}

impl Plan {
    /// Learns merges from the words into which `split` cuts `texts`: the most frequent pair first, of equally
    /// frequent ones that with the lower ids. Every character of a word must be in the base, alone and, where
    /// words have an end mark, with it; so ids depend on the texts alone.
    pub fn train(self, texts: Texts, split: impl Fn(&str) -> TkResult<Vec<String>> + Sync) -> TkResult<BPE> {
        // The base goes in by the trainer's list of special tokens, which are the only ones whose ids it lets one
        // choose; the model it gives has no notion of special tokens.
        let base = self.base.into_iter().map(|token| AddedToken::from(token, false)).collect();
        let trainer =
            BpeTrainer::builder().special_tokens(base).vocab_size(self.vocab_size).show_progress(false);
        let mut trainer = match self.word_end {
            Some(mark) => trainer.end_of_word_suffix(mark.into()).build(),
            None => trainer.build(),
        };
        trainer.feed(texts, split)?;
        let mut model = BPE::default();
        trainer.train(&mut model)?;
        Ok(model)
    }
}

/// Refuses a vocabulary without room for its base.
pub(super) fn check_size(which: &'static str, asked: usize, least: usize) -> Result<(), PrepareError> {
    if asked < least { Err(PrepareError::VocabularyTooSmall { which, asked, least }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(plan: Plan, texts: &[&str]) -> Vec<(u32, String)> {
        let mut texts = texts.iter().map(|text| (*text).to_owned());
        let words = |text: &str| Ok(text.split(' ').map(str::to_owned).collect());
        let model = plan.train(&mut texts, words).unwrap();
        let mut ids: Vec<_> =
            tokenizers::Model::get_vocab(&model).into_iter().map(|(token, id)| (id, token)).collect();
        ids.sort();
        ids
    }

    #[test]
    fn frequent_pairs_come_first_and_the_base_keeps_its_ids() {
        let base = ["<s>", "c", "b", "a"].map(str::to_owned).to_vec();
        let plan = Plan { base, vocab_size: 6, word_end: None };
        let tokens: Vec<_> = ids(plan, &["ab ab ca", "ca ab"]).into_iter().map(|(_, token)| token).collect();
        assert_eq!(tokens, ["<s>", "c", "b", "a", "ab", "ca"]);
    }

    #[test]
    fn ids_do_not_depend_on_the_order_of_hashing() {
        let words: Vec<String> =
            (0..400u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
        let text = words.join(" ");
        let trained = || {
            let digits = || (0..16u32).filter_map(|n| char::from_digit(n, 16));
            let base = digits().map(String::from).chain(digits().map(|c| format!("{c}."))).collect();
            ids(Plan { base, vocab_size: 300, word_end: Some(".") }, &[&text])
        };
        let first = trained();
        assert_eq!(first.len(), 300);
        assert!((0..20).all(|_| trained() == first));
    }
}
