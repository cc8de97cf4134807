//! The guide's tokenizer: CLIP's byte-level BPE over lower-case words.

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{Lowercase, NFC, NormalizerWrapper, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Result as TkResult, SplitDelimiterBehavior, Tokenizer,
};

use super::bytes::byte_chars;
use super::train::Plan;
use super::{Texts, Trained};
use crate::prepare::PrepareError;

/// How CLIP cuts lower-case text into words.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Ends every word of the vocabulary.
const WORD_END: &str = "</w>";

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// The smallest vocabulary of a guide: every byte that lower-case text may hold, alone and as the end of a word, and
/// the two marks.
pub fn least_vocabulary() -> usize {
    base().len() + 2
}

/// Trains on whole questions.
pub(super) fn train(questions: Texts, vocab_size: usize) -> Result<Trained, PrepareError> {
    build(questions, vocab_size)
        .map_err(|e| PrepareError::Tokenizer { which: "guide", reason: e.to_string() })
}

fn build(questions: Texts, vocab_size: usize) -> TkResult<Trained> {
    let (normalizer, words) = (normalizer()?, words()?);
    let marks = 2;
    let plan = Plan { base: base(), vocab_size: vocab_size - marks, word_end: Some(WORD_END) };
    let model = plan.train(questions, |question| split(question, &normalizer, &words))?;
    let Merged { mut vocab, merges } = serde_json::from_value(serde_json::to_value(&model)?)?;
    // Behind everything else, and the end last: CLIP's tower pools where the highest id stands.
    let start_id = vocab.len() as u32;
    let end_id = start_id + 1;
    vocab.extend([(START.to_owned(), start_id), (END.to_owned(), end_id)]);
    let vocab_json = ordered(&vocab)?;
    let lines: Vec<_> = merges.iter().map(|(left, right)| format!("{left} {right}\n")).collect();
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(END.into())
        .end_of_word_suffix(WORD_END.into())
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer))?;
    tokenizer.with_pre_tokenizer(Some(words));
    tokenizer.add_special_tokens([START, END].map(|mark| AddedToken::from(mark, true)))?;
    let frame = RobertaProcessing::new((END.into(), end_id), (START.into(), start_id));
    tokenizer.with_post_processor(Some(frame.trim_offsets(false).add_prefix_space(false)));
    tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
    let vocab_size = tokenizer.get_vocab_size(true);
    let files = vec![
        ("tokenizer.json", tokenizer.to_string(true)? + "\n"),
        ("vocab.json", vocab_json),
        ("merges.txt", format!("#version: 0.2\n{}", lines.concat())),
        ("tokenizer_config.json", format!("{:#}\n", config())),
    ];
    Ok(Trained { files, vocab_size })
}

/// What a trained model holds.
#[derive(Deserialize)]
struct Merged {
    vocab: Vocab,
    merges: Vec<(String, String)>,
}

/// The bytes that a normalised word may hold, then those it may end with. In lower-case UTF-8 without white space
/// some bytes never come, and no character ends with a byte that begins one: leaving these out, as CLIP does not,
/// leaves room for 141 merges more, which counts in a small vocabulary, and no text misses them.
fn base() -> Vec<String> {
    let ascii = |byte: &u8| !byte.is_ascii_uppercase() && !matches!(byte, b'\t'..=b'\r' | b' ');
    let ends = |byte: &u8| matches!(byte, 0..=0x7f if ascii(byte)) || matches!(byte, 0x80..=0xbf);
    let inside = |byte: &u8| ends(byte) || matches!(byte, 0xc2..=0xf4);
    let alone = byte_chars((0..=255).filter(inside)).into_iter().map(String::from);
    let last = byte_chars((0..=255).filter(ends)).into_iter().map(|c| format!("{c}{WORD_END}"));
    alone.chain(last).collect()
}

/// CLIP's: composed characters, single spaces, lower case.
fn normalizer() -> TkResult<Normalizers> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let steps: Vec<NormalizerWrapper> = vec![NFC.into(), spaces.into(), Lowercase.into()];
    Ok(Normalizers::new(steps))
}

fn words() -> TkResult<PreTokenizers> {
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let steps: Vec<PreTokenizerWrapper> = vec![words.into(), ByteLevel::new(false, true, true).into()];
    Ok(PreTokenizers::new(steps))
}

fn split(question: &str, normalizer: &Normalizers, words: &PreTokenizers) -> TkResult<Vec<String>> {
    let mut text = NormalizedString::from(question);
    normalizer.normalize(&mut text)?;
    let mut cut = PreTokenizedString::from(text);
    words.pre_tokenize(&mut cut)?;
    let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, ..)| word.to_owned()).collect())
}

/// `vocab.json`: tokens by id, one a line.
fn ordered(vocab: &Vocab) -> TkResult<String> {
    let mut tokens: Vec<_> = vocab.iter().collect();
    tokens.sort_by_key(|(_, id)| **id);
    let lines: Vec<_> = tokens
        .into_iter()
        .map(|(token, id)| Ok(format!("  {}: {id}", serde_json::to_string(token)?)))
        .collect::<TkResult<_>>()?;
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
}

/// `tokenizer_config.json`, such that Hugging Face's transformers load the same tokenizer.
fn config() -> Value {
    json!({
        "bos_token": START,
        "clean_up_tokenization_spaces": false,
        "do_lower_case": true,
        "eos_token": END,
        "errors": "replace",
        "pad_token": END,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": END,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_base_is_small() {
        assert_eq!(base().len(), 371);
        assert!(base().contains(&format!("?{WORD_END}")));
    }

    proptest! {
        #[test]
        fn the_base_spells_every_word(text in any::<String>()) {
            let base: HashSet<String> = base().into_iter().collect();
            for word in split(&text, &normalizer().unwrap(), &words().unwrap()).unwrap() {
                let mut letters: Vec<char> = word.chars().collect();
                let last = letters.pop().unwrap();
                prop_assert!(letters.iter().all(|c| base.contains(&c.to_string())), "{word:?}");
                prop_assert!(base.contains(&format!("{last}{WORD_END}")), "{word:?}");
            }
        }
    }
}
