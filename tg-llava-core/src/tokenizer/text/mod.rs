//! The language model's tokenizer.

mod token_bytes;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use tokenizers::{AddedToken, Encoding, Tokenizer};

use super::config::{SpecialIds, TokenizerConfig};
use super::guarded::guarded;
use super::image_token::Tokenized;
use super::{TokenizerError, byte_level, sentencepiece};

/// SentencePiece's visible space.
pub(super) const WORD_START: &str = "\u{2581}";

/// Llama-3 has no padding token; the reference takes its first reserved one.
const RESERVED_TOKEN: &str = "<|reserved_special_token_0|>";

/// Where a space is put before text that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    /// As the tokenizer's own normalizer does it.
    Own,
    /// Once, at the very beginning: SentencePiece with `legacy` false.
    FirstSection,
}

/// The language model's tokenizer: text to ids and back, and the ids of its special tokens.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// What it was read from.
    path: PathBuf,
    prefix: Prefix,
    special: SpecialIds,
    adds_bos: bool,
    cleans_up: bool,
    max_length: Option<usize>,
}

impl TextTokenizer {
    /// The tokenizer of a model folder: from `tokenizer.json`, else `tokenizer.model`, else `vocab.json` with
    /// `merges.txt`; `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and the id keys of
    /// `config.json` are heeded where they are there.
    ///
    /// # Errors
    /// A [`TokenizerError`] which names the file that is missing, unreadable or contradictory.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let dir = dir.as_ref();
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            return if dir.join("tokenizer.model").exists() {
                Self::from_sentencepiece(dir)
            } else if dir.join("vocab.json").exists() && dir.join("merges.txt").exists() {
                Self::from_vocab_and_merges(dir)
            } else {
                let expected = "tokenizer.json, tokenizer.model, or vocab.json with merges.txt";
                Err(TokenizerError::Missing { dir: dir.to_path_buf(), expected })
            };
        }
        let config = TokenizerConfig::read(dir)?;
        let mut inner = load_json(&path)?;
        config.add_missing(&mut inner, &path)?;
        if config.is_class("LlamaTokenizer") {
            // transformers frames the text of this class by its config, not by tokenizer.json.
            sentencepiece::frame(&mut inner, &config).map_err(|e| TokenizerError::malformed(&path, e))?;
        }
        Self::finish(inner, path, Prefix::Own, &config)
    }

    /// The tokenizer of a folder's `tokenizer.model` (SentencePiece BPE or Unigram), even where it has a
    /// `tokenizer.json`: what transformers' slow Llama tokenizer gives, `legacy` true or false.
    ///
    /// # Errors
    /// A [`TokenizerError`] which names the file that is missing, unreadable or not a SentencePiece model.
    pub fn from_sentencepiece(dir: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let dir = dir.as_ref();
        let mut config = TokenizerConfig::read(dir)?;
        let path = dir.join("tokenizer.model");
        let (inner, prefix) = sentencepiece::llama(&path, &mut config)?;
        Self::finish(inner, path, prefix, &config)
    }

    /// The tokenizer of a folder's `vocab.json` and `merges.txt` (byte-level BPE), even where it has a
    /// `tokenizer.json`: Qwen2's rules where `tokenizer_class` says so, else GPT-2's.
    ///
    /// # Errors
    /// A [`TokenizerError`] which names the file that is missing, unreadable or contradictory.
    pub fn from_vocab_and_merges(dir: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let dir = dir.as_ref();
        let config = TokenizerConfig::read(dir)?;
        let inner = byte_level::language_model(dir, &config)?;
        Self::finish(inner, dir.join("vocab.json"), Prefix::Own, &config)
    }

    fn finish(
        inner: Tokenizer,
        path: PathBuf,
        prefix: Prefix,
        config: &TokenizerConfig,
    ) -> Result<Self, TokenizerError> {
        let frame = guarded(|| inner.encode("", true)).map_err(|e| TokenizerError::malformed(&path, e))?;
        let first = frame.get_ids().first().copied();
        let mut special = config.special_ids(&inner);
        if config.class.is_none() {
            // Without a tokenizer_config.json, the id put before an empty text is the BOS.
            special.bos = special.bos.or(first);
        }
        let adds_bos = first.is_some() && first == special.bos;
        let (cleans_up, max_length) = (config.cleans_up(), config.max_length);
        Ok(Self { inner, path, prefix, special, adds_bos, cleans_up, max_length })
    }

    /// The ids of `text`, with BOS and the like around it where `add_special`. Special tokens written out in
    /// `text` become their ids either way.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the tokenizer refuses the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let (encoding, skip) = self.encoding(text, add_special)?;
        Ok(kept(&encoding, skip).map(|i| encoding.get_ids()[i]).collect())
    }

    /// [`encode`](Self::encode), with the byte range of `text` under every id.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the tokenizer refuses the text.
    pub fn encode_with_spans(&self, text: &str, add_special: bool) -> Result<Tokenized, TokenizerError> {
        let (encoding, skip) = self.encoding(text, add_special)?;
        let put_before = match self.prefix {
            Prefix::Own => 0,
            Prefix::FirstSection => WORD_START.len(),
        };
        let mut out = Tokenized::default();
        for i in kept(&encoding, skip) {
            let (start, end) = encoding.get_offsets()[i];
            let span = start.saturating_sub(put_before)..end.saturating_sub(put_before);
            out.ids.push(i64::from(encoding.get_ids()[i]));
            out.spans.push((encoding.get_special_tokens_mask()[i] == 0).then_some(span));
        }
        Ok(out)
    }

    /// Runs the tokenizer; the index is of a token to leave out.
    fn encoding(&self, text: &str, add_special: bool) -> Result<(Encoding, Option<usize>), TokenizerError> {
        let run = |text: &str| {
            guarded(|| self.inner.encode(text, add_special)).map_err(|e| TokenizerError::encode(text, e))
        };
        if self.prefix == Prefix::Own || text.is_empty() {
            return Ok((run(text)?, None));
        }
        let encoding = run(&format!("{WORD_START}{text}"))?;
        // Before a special token the space stands alone, and SentencePiece's wrapper drops it.
        let lone = encoding.get_special_tokens_mask().iter().position(|&added| added == 0).filter(|&i| {
            let special = encoding.get_tokens().get(i + 1).is_some_and(|next| self.is_special(next));
            encoding.get_tokens()[i] == WORD_START && special
        });
        Ok((encoding, lone))
    }

    fn is_special(&self, token: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(token)
    }

    /// The text of `ids`, without the special tokens where `skip_special`, spaces before punctuation tidied where
    /// the tokenizer's config asks for it (as transformers does).
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] where the tokenizer refuses the ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let text = self.decode_verbatim(ids, skip_special)?;
        Ok(if self.cleans_up { tidy(&text) } else { text })
    }

    /// [`decode`](Self::decode) without tidying, so that the text of more ids only ever grows: for streaming.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] where the tokenizer refuses the ids.
    pub fn decode_verbatim(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        guarded(|| self.inner.decode(ids, skip_special))
            .map_err(|e| TokenizerError::Decode { path: self.path.clone(), reason: e.to_string() })
    }

    /// Ids of BOS, EOS, padding and unknown.
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// Whether encoding puts a BOS before the text.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// The id that fills up a batch, as the reference chooses it for most templates: the unknown token, else the
    /// declared padding, else Llama-3's first reserved token, else EOS, else 0.
    pub fn pad_id(&self) -> u32 {
        self.special.unk.or_else(|| self.own_pad_id()).unwrap_or(0)
    }

    /// The id that fills up a batch where the tokenizer's own declaration counts (the templates `qwen_2` and
    /// `v0`): the declared padding, else Llama-3's first reserved token, else EOS.
    pub fn own_pad_id(&self) -> Option<u32> {
        self.special.pad.or_else(|| self.token_id(RESERVED_TOKEN)).or(self.special.eos)
    }

    /// The longest text the tokenizer is meant for, in ids; `None` where its config names no limit.
    pub fn model_max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The id of exactly this token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token behind an id, as it stands in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Adds special tokens behind the vocabulary, such as `<im_start>`; returns how many were new.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the tokenizer refuses a token.
    pub fn add_special_tokens(&mut self, tokens: &[&str]) -> Result<usize, TokenizerError> {
        let tokens: Vec<_> =
            tokens.iter().map(|token| AddedToken::from(*token, true).normalized(false)).collect();
        self.inner.add_special_tokens(tokens).map_err(|e| TokenizerError::encode("", e))
    }
}

/// Indices of an encoding's tokens but for `skip`.
fn kept(encoding: &Encoding, skip: Option<usize>) -> impl Iterator<Item = usize> {
    (0..encoding.len()).filter(move |&i| Some(i) != skip)
}

/// A `tokenizer.json`, without the truncation and padding that it may have stored.
pub(super) fn load_json(path: &Path) -> Result<Tokenizer, TokenizerError> {
    let bytes = std::fs::read(path).map_err(|e| TokenizerError::io(path, e))?;
    // What is wrong with the JSON itself is said with its line and column.
    serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|e| TokenizerError::json(path, e))?;
    let mut tokenizer =
        guarded(|| Tokenizer::from_bytes(bytes)).map_err(|e| TokenizerError::malformed(path, e))?;
    tokenizer.with_truncation(None).map_err(|e| TokenizerError::malformed(path, e))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// transformers' `clean_up_tokenization`.
fn tidy(text: &str) -> String {
    const PAIRS: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    PAIRS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
