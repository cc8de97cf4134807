//! The language model's tokenizer.

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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/conversations");

    fn golden() -> Value {
        serde_json::from_slice(&std::fs::read(format!("{FIXTURES}/tokenization.json")).unwrap()).unwrap()
    }

    fn folder(name: &str) -> String {
        format!("{FIXTURES}/tokenizers/{name}")
    }

    #[test]
    fn texts_and_their_ids_equal_the_references() {
        for (name, cases) in golden()["texts"].as_object().unwrap() {
            let tokenizer = TextTokenizer::from_dir(folder(name)).unwrap();
            for case in cases.as_array().unwrap() {
                let text = case["text"].as_str().unwrap();
                let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
                assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{name} {text:?}");
                assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"], "{name}");
                assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["decoded_skip_special"], "{name}");
            }
        }
    }

    #[test]
    fn the_older_files_give_the_slow_tokenizers_ids() {
        for (name, cases) in golden()["texts"].as_object().unwrap() {
            let dir = folder(name);
            let tokenizer = match name.as_str() {
                "qwen2" => TextTokenizer::from_vocab_and_merges(dir).unwrap(),
                "llama" | "llama-legacy-false" => TextTokenizer::from_sentencepiece(dir).unwrap(),
                _ => continue,
            };
            for case in cases.as_array().unwrap() {
                let text = case["text"].as_str().unwrap();
                let ids = case.get("slow_ids").unwrap_or(&case["ids"]);
                let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
                assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{name} {text:?}");
            }
        }
    }

    #[test]
    fn prompts_with_pictures_equal_the_references() {
        for case in golden()["tokenizer_image_token"].as_array().unwrap() {
            let tokenizer = TextTokenizer::from_dir(folder(case["tokenizer"].as_str().unwrap())).unwrap();
            let prompt = case["prompt"].as_str().unwrap();
            let ids: Vec<i64> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode_with_images(prompt).unwrap().ids, ids, "{prompt:?}");
        }
    }

    #[test]
    fn special_tokens_are_known() {
        let special = |name: &str| TextTokenizer::from_dir(folder(name)).unwrap();
        let llama = special("llama");
        assert_eq!(llama.special(), SpecialIds { bos: Some(1), eos: Some(2), pad: Some(0), unk: Some(0) });
        assert_eq!((llama.adds_bos(), llama.pad_id(), llama.model_max_length()), (true, 0, Some(2048)));
        let qwen = special("qwen2");
        assert_eq!((qwen.special().bos, qwen.adds_bos(), qwen.pad_id()), (None, false, 436));
        let llama3 = special("llama3");
        assert_eq!((llama3.adds_bos(), llama3.pad_id()), (true, 428));
        assert!(!special("llama3-nobos").adds_bos());
    }

    #[test]
    fn spans_point_into_the_text() {
        for name in ["llama", "llama-legacy-false", "llama3", "qwen2"] {
            for tokenizer in [
                TextTokenizer::from_dir(folder(name)).ok(),
                TextTokenizer::from_sentencepiece(folder(name)).ok(),
            ] {
                let Some(tokenizer) = tokenizer else { continue };
                let text = "One 漢 two";
                let tokens = tokenizer.encode_with_spans(text, true).unwrap();
                let spans: Vec<_> = tokens.spans.iter().flatten().cloned().collect();
                assert_eq!(spans[0].start, 0, "{name}");
                assert_eq!(spans.last().unwrap().end, text.len(), "{name}");
                assert!(spans.iter().all(|span| text.get(span.clone()).is_some()), "{name} {spans:?}");
                assert_eq!(tokens.spans[0].is_none(), tokenizer.adds_bos(), "{name}");
            }
        }
    }

    #[test]
    fn added_tokens_come_behind_the_vocabulary() {
        let mut tokenizer = TextTokenizer::from_dir(folder("llama")).unwrap();
        let size = tokenizer.vocab_size() as u32;
        assert_eq!(tokenizer.add_special_tokens(&["<im_start>", "</s>"]).unwrap(), 1);
        assert_eq!(tokenizer.encode("<im_start>", false).unwrap(), [size]);
    }

    #[test]
    fn an_empty_folder_says_what_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.model") && error.contains("merges.txt"), "{error}");
        std::fs::write(dir.path().join("tokenizer.model"), b"\x0a\xff").unwrap();
        let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.model") && error.contains("cut short"), "{error}");
        std::fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
        let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }

    #[test]
    fn a_merge_without_a_space_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vocab.json"), r#"{"a": 0, "b": 1, "ab": 2}"#).unwrap();
        std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\nab\n").unwrap();
        let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("merges.txt: line 2"), "{error}");
        std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\na b\nb a\n").unwrap();
        let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("merges.txt: line 3: token \"ba\" is not in vocab.json"), "{error}");
        std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\na b\n").unwrap();
        assert_eq!(TextTokenizer::from_dir(dir.path()).unwrap().encode("ab", true).unwrap(), [2]);
    }

    /// A folder with the fixture's tokenizer.json, its decoder exchanged.
    fn with_decoder(decoder: &str) -> tempfile::TempDir {
        let text = std::fs::read_to_string(format!("{}/tokenizer.json", folder("llama"))).unwrap();
        let mut json: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        json.insert("decoder".into(), "HERE".into());
        let text = Value::Object(json).to_string().replace("\"HERE\"", decoder);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
        dir
    }

    #[test]
    fn a_malformed_decoder_is_an_error_that_names_the_file() {
        for decoder in [
            r#"{"type": "Fuse", "#,
            r#"{"type": }"#,
            r#"{"type": "Strip", "content": "x", "start": -}"#,
            r#"{"type": "Nothing"}"#,
            "3",
            r#"{"type": "Sequence", "decoders": [{"type": "Replace"}]}"#,
        ] {
            let dir = with_decoder(decoder);
            let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
            assert!(error.contains("tokenizer.json"), "{decoder}: {error}");
        }
    }

    #[test]
    fn a_decoder_that_fails_over_a_text_is_an_error_that_names_the_file() {
        let dir = with_decoder(r#"{"type": "Strip", "content": "a", "start": 1, "stop": 1}"#);
        let tokenizer = TextTokenizer::from_dir(dir.path()).unwrap();
        let id = tokenizer.token_id("a").unwrap();
        let error = tokenizer.decode(&[id], false).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }
}
