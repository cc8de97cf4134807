//! The small JSON files beside a tokenizer: which tokens are special, and how text is framed.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use super::TokenizerError;

/// A `model_max_length` above this is transformers' way of saying "none".
const NO_LENGTH: f64 = 1e9;

/// Ids of the tokens with a role; `None` where the tokenizer has no such token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Fills up a batch, as the tokenizer itself declares it.
    pub pad: Option<u32>,
    /// Stands for what the vocabulary lacks.
    pub unk: Option<u32>,
}

/// What `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and the id keys of
/// `config.json` say together; every file is optional.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    pub class: Option<String>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub legacy: Option<bool>,
    pub add_prefix_space: Option<bool>,
    pub clean_up: Option<bool>,
    pub max_length: Option<usize>,
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub pad: Option<String>,
    pub unk: Option<String>,
    /// Tokens that come on top of the model's vocabulary, by id.
    pub added: BTreeMap<u32, AddedToken>,
    model: ModelIds,
}

/// The ids a model's `config.json` names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ModelIds {
    bos_token_id: Option<IdOrIds>,
    eos_token_id: Option<IdOrIds>,
    pad_token_id: Option<IdOrIds>,
}

/// `eos_token_id` may be a list; its first entry ends a text. A negative id means "none".
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum IdOrIds {
    One(i64),
    Many(Vec<i64>),
}

impl IdOrIds {
    fn first(&self) -> Option<u32> {
        let id = match self {
            Self::One(id) => Some(*id),
            Self::Many(ids) => ids.first().copied(),
        };
        id.and_then(|id| u32::try_from(id).ok())
    }
}

/// A token written as a bare string or with its matching rules.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum TokenEntry {
    Plain(String),
    Full(TokenRules),
}

#[derive(Debug, Clone, Deserialize)]
struct TokenRules {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

impl From<&TokenRules> for AddedToken {
    fn from(rules: &TokenRules) -> Self {
        Self::from(rules.content.clone(), rules.special)
            .lstrip(rules.lstrip)
            .rstrip(rules.rstrip)
            .single_word(rules.single_word)
            .normalized(rules.normalized)
    }
}

impl TokenEntry {
    fn content(self) -> String {
        match self {
            Self::Plain(content) | Self::Full(TokenRules { content, .. }) => content,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    tokenizer_class: Option<String>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    legacy: Option<bool>,
    add_prefix_space: Option<bool>,
    clean_up_tokenization_spaces: Option<bool>,
    model_max_length: Option<f64>,
    bos_token: Option<TokenEntry>,
    eos_token: Option<TokenEntry>,
    pad_token: Option<TokenEntry>,
    unk_token: Option<TokenEntry>,
    added_tokens_decoder: BTreeMap<String, TokenRules>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpecialTokensMap {
    bos_token: Option<TokenEntry>,
    eos_token: Option<TokenEntry>,
    pad_token: Option<TokenEntry>,
    unk_token: Option<TokenEntry>,
}

impl TokenizerConfig {
    /// Reads what `dir` holds of the four files.
    pub fn read(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer_config.json");
        let file: ConfigFile = read_optional(&path)?.unwrap_or_default();
        let map: SpecialTokensMap = read_optional(&dir.join("special_tokens_map.json"))?.unwrap_or_default();
        let listed: BTreeMap<String, u32> =
            read_optional(&dir.join("added_tokens.json"))?.unwrap_or_default();
        let model = read_optional::<Value>(&dir.join("config.json"))?
            .and_then(|config| serde_json::from_value(config).ok())
            .unwrap_or_default();
        let mut added: BTreeMap<u32, AddedToken> =
            listed.into_iter().map(|(content, id)| (id, AddedToken::from(content, false))).collect();
        for (key, rules) in &file.added_tokens_decoder {
            let id = key.parse().map_err(|_| {
                TokenizerError::malformed(&path, format!("added_tokens_decoder: key {key:?} is not an id"))
            })?;
            added.insert(id, rules.into());
        }
        let token =
            |own: Option<TokenEntry>, mapped: Option<TokenEntry>| own.or(mapped).map(TokenEntry::content);
        Ok(Self {
            class: file.tokenizer_class,
            add_bos: file.add_bos_token,
            add_eos: file.add_eos_token,
            legacy: file.legacy,
            add_prefix_space: file.add_prefix_space,
            clean_up: file.clean_up_tokenization_spaces,
            max_length: file.model_max_length.filter(|n| (1.0..NO_LENGTH).contains(n)).map(|n| n as usize),
            bos: token(file.bos_token, map.bos_token),
            eos: token(file.eos_token, map.eos_token),
            pad: token(file.pad_token, map.pad_token),
            unk: token(file.unk_token, map.unk_token),
            added,
            model,
        })
    }

    /// Whether `tokenizer_class` is `name` or its fast variant.
    pub fn is_class(&self, name: &str) -> bool {
        self.class.as_deref().is_some_and(|class| class.strip_suffix("Fast").unwrap_or(class) == name)
    }

    /// Whether decoding tidies the spaces before punctuation, with each class's own default.
    pub fn cleans_up(&self) -> bool {
        let plain =
            self.class.is_none() || self.is_class("LlamaTokenizer") || self.is_class("Qwen2Tokenizer");
        self.clean_up.unwrap_or(!plain)
    }

    /// The ids of the special tokens in `tokenizer`, falling back on the model's `config.json`.
    pub fn special_ids(&self, tokenizer: &Tokenizer) -> SpecialIds {
        let id = |token: &Option<String>, fallback: Option<&IdOrIds>| match token {
            Some(token) => tokenizer.token_to_id(token),
            None => fallback.and_then(IdOrIds::first),
        };
        // A tokenizer that declares itself without BOS (Qwen2) has none, whatever the model's file says.
        let model_bos = self.model.bos_token_id.as_ref().filter(|_| self.class.is_none());
        SpecialIds {
            bos: id(&self.bos, model_bos),
            eos: id(&self.eos, self.model.eos_token_id.as_ref()),
            pad: id(&self.pad, self.model.pad_token_id.as_ref()),
            unk: id(&self.unk, None),
        }
    }

    /// Adds the declared tokens that `tokenizer` lacks; their ids must come out as declared.
    pub fn add_missing(&self, tokenizer: &mut Tokenizer, path: &Path) -> Result<(), TokenizerError> {
        for (&id, token) in &self.added {
            if tokenizer.token_to_id(&token.content).is_none() {
                let added = if token.special {
                    tokenizer.add_special_tokens([token.clone()])
                } else {
                    tokenizer.add_tokens([token.clone()])
                };
                added.map_err(|e| TokenizerError::malformed(path, e))?;
            }
            let got = tokenizer.token_to_id(&token.content);
            if got != Some(id) {
                let reason = format!(
                    "token {:?} is declared with id {id}, but the vocabulary gives {got:?}; \
                     the files belong to different tokenizers",
                    token.content
                );
                return Err(TokenizerError::malformed(path, reason));
            }
        }
        Ok(())
    }
}

/// The JSON in `path`; `None` where there is no such file.
pub(super) fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TokenizerError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| TokenizerError::json(path, e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(TokenizerError::io(path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn config_wins_over_the_map_and_huge_lengths_mean_none() {
        let dir = folder(&[
            (
                "tokenizer_config.json",
                r#"{"eos_token": {"content": "<e>"}, "model_max_length": 1e30, "tokenizer_class": "LlamaTokenizerFast"}"#,
            ),
            ("special_tokens_map.json", r#"{"eos_token": "<other>", "bos_token": "<b>"}"#),
        ]);
        let config = TokenizerConfig::read(dir.path()).unwrap();
        assert_eq!(config.eos.as_deref(), Some("<e>"));
        assert_eq!(config.bos.as_deref(), Some("<b>"));
        assert_eq!(config.max_length, None);
        assert!(config.is_class("LlamaTokenizer"));
        assert!(!config.cleans_up());
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = folder(&[("tokenizer_config.json", "{\"eos_token\": 3")]);
        let error = TokenizerConfig::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn a_key_that_is_no_id_is_named() {
        let dir =
            folder(&[("tokenizer_config.json", r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#)]);
        assert!(TokenizerConfig::read(dir.path()).unwrap_err().to_string().contains("\"x\""));
    }
}
