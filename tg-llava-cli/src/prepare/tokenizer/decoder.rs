//! The decoder's tokenizer: byte-level BPE with Llama-2's special tokens.

use serde_json::{Value, json};
use tg_llava_core::tokenizer::IMAGE_TAG;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Result as TkResult,
    Tokenizer,
};

use super::bytes::byte_chars;
use super::train::Plan;
use super::{Texts, Trained};
use crate::prepare::PrepareError;

/// Padding, beginning and end: the ids are the places.
const SPECIAL: [&str; 3] = [PAD, BOS, EOS];
const PAD: &str = "<pad>";
const BOS: &str = "<s>";
const EOS: &str = "</s>";

/// The smallest vocabulary of a decoder: its special tokens and the 256 bytes.
pub fn least_vocabulary() -> usize {
    SPECIAL.len() + 256
}

/// Trains on whole prompts. Special tokens and picture marks in them are no text.
pub(super) fn train(prompts: Texts, vocab_size: usize) -> Result<Trained, PrepareError> {
    build(prompts, vocab_size)
        .map_err(|e| PrepareError::Tokenizer { which: "decoder", reason: e.to_string() })
}

fn build(prompts: Texts, vocab_size: usize) -> TkResult<Trained> {
    let bytes = byte_chars(0..=255).into_iter().map(String::from);
    let base = SPECIAL.into_iter().map(str::to_owned).chain(bytes).collect();
    let words = ByteLevel::new(false, false, true);
    let plan = Plan { base, vocab_size, word_end: None };
    let model = plan.train(prompts, |prompt| {
        pieces(prompt)
            .into_iter()
            .map(|piece| split(piece, &words))
            .collect::<TkResult<Vec<_>>>()
            .map(|words| words.concat())
    })?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(words));
    tokenizer.with_decoder(Some(words));
    tokenizer.add_special_tokens(SPECIAL.map(special))?;
    let frame = TemplateProcessing::builder()
        .try_single(format!("{BOS} $A"))?
        .try_pair(format!("{BOS} $A {BOS} $B:1"))?
        .special_tokens(vec![(BOS, 1)])
        .build()?;
    tokenizer.with_post_processor(Some(frame));
    let vocab_size = tokenizer.get_vocab_size(true);
    let config = format!("{:#}\n", config());
    let files =
        vec![("tokenizer.json", tokenizer.to_string(true)? + "\n"), ("tokenizer_config.json", config)];
    Ok(Trained { files, vocab_size })
}

fn special(token: &str) -> AddedToken {
    AddedToken::from(token, true).normalized(false)
}

/// The text between the marks that are single ids.
fn pieces(prompt: &str) -> Vec<&str> {
    let marks = SPECIAL.into_iter().chain([IMAGE_TAG]);
    marks.fold(vec![prompt], |pieces, mark| pieces.into_iter().flat_map(|piece| piece.split(mark)).collect())
}

fn split(piece: &str, words: &ByteLevel) -> TkResult<Vec<String>> {
    let mut cut = PreTokenizedString::from(piece);
    words.pre_tokenize(&mut cut)?;
    let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, ..)| word.to_owned()).collect())
}

/// `tokenizer_config.json`, such that Hugging Face's transformers load the same tokenizer.
fn config() -> Value {
    let declared = |token: &str| {
        json!({
            "content": token, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true
        })
    };
    json!({
        "added_tokens_decoder": { "0": declared(PAD), "1": declared(BOS), "2": declared(EOS) },
        "bos_token": BOS,
        "clean_up_tokenization_spaces": false,
        "eos_token": EOS,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_no_text() {
        assert_eq!(pieces("<s>USER: <image>\na<pad></s>b"), ["", "USER: ", "\na", "", "b"]);
        let trained = train(&mut ["a</s></s></s><image>".repeat(9)].into_iter(), 300).unwrap();
        // Nothing to merge.
        assert_eq!(trained.vocab_size, least_vocabulary());
    }
}
