//! The tokenizer of the text tower that reads the guide.

use std::borrow::Cow;
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::config::{TokenizerConfig, read_optional};
use super::guarded::guarded;
use super::text::load_json;
use super::{TokenizerError, byte_level, sentencepiece};

/// Which family of text towers a tokenizer serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuideKind {
    /// Start and end tokens around the text, 77 positions, rows padded to the longest.
    Clip,
    /// Words without punctuation, end token behind the text, every row padded to all 64 positions.
    Siglip,
}

impl GuideKind {
    /// Positions of the published towers.
    fn positions(self) -> usize {
        match self {
            Self::Clip => 77,
            Self::Siglip => 64,
        }
    }
}

/// What is done with a guide text that has more ids than the tower has positions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GuideCut {
    /// Words are dropped from the end, the end token stays.
    #[default]
    KeepEnd,
    /// Everything behind the last position is dropped, the end token too: the reference in training.
    DropEnd,
    /// Nothing: the reference in its inference script, whose tower then fails.
    Whole,
}

/// The tokenizer of a CLIP or SigLIP text tower.
#[derive(Debug, Clone)]
pub struct GuideTokenizer {
    inner: Tokenizer,
    kind: GuideKind,
    positions: usize,
    pad_id: i64,
    end_id: i64,
}

impl GuideTokenizer {
    /// The tokenizer in a text tower's folder: from `tokenizer.json`, else CLIP's `vocab.json` with `merges.txt`
    /// or SigLIP's `spiece.model`. `positions` is the tower's `max_position_embeddings`; without it the
    /// published towers' 77 (CLIP) or 64 (SigLIP) hold.
    ///
    /// # Errors
    /// A [`TokenizerError`] which names the file that is missing, unreadable or contradictory.
    pub fn from_dir(dir: impl AsRef<Path>, positions: Option<usize>) -> Result<Self, TokenizerError> {
        let dir = dir.as_ref();
        let config = TokenizerConfig::read(dir)?;
        let kind = kind_of(dir, &config)?;
        let path = dir.join("tokenizer.json");
        let spiece = dir.join("spiece.model");
        let inner = match kind {
            _ if path.exists() => load_json(&path)?,
            GuideKind::Siglip if spiece.exists() => sentencepiece::siglip(&spiece, &config)?,
            GuideKind::Clip if dir.join("vocab.json").exists() => byte_level::clip(dir, &config)?,
            GuideKind::Siglip => {
                let expected = "tokenizer.json or spiece.model";
                return Err(TokenizerError::Missing { dir: dir.to_path_buf(), expected });
            }
            GuideKind::Clip => {
                let expected = "tokenizer.json, or vocab.json with merges.txt";
                return Err(TokenizerError::Missing { dir: dir.to_path_buf(), expected });
            }
        };
        Self::build(inner, kind, &config, positions).map_err(|reason| TokenizerError::malformed(dir, reason))
    }

    fn build(
        inner: Tokenizer,
        kind: GuideKind,
        config: &TokenizerConfig,
        positions: Option<usize>,
    ) -> Result<Self, String> {
        let frame = guarded(|| inner.encode("", true)).map_err(|e| e.to_string())?;
        let special = config.special_ids(&inner);
        let by_name = match kind {
            GuideKind::Clip => byte_level::CLIP_MARKS[1],
            GuideKind::Siglip => "</s>",
        };
        let end = special
            .eos
            .filter(|_| config.eos.is_some())
            .or_else(|| frame.get_ids().last().copied())
            .or_else(|| inner.token_to_id(by_name));
        let end = end.ok_or_else(|| format!("the tokenizer has no end token such as {by_name:?}"))?;
        let pad = special.pad.filter(|_| config.pad.is_some()).unwrap_or(end);
        let positions = positions.unwrap_or_else(|| kind.positions());
        if positions < 2 {
            return Err(format!("a guide needs at least 2 positions, the tower has {positions}"));
        }
        let (pad_id, end_id) = (i64::from(pad), i64::from(end));
        Ok(Self { inner, kind, positions, pad_id, end_id })
    }

    /// The ids of one guide text, framed, not padded.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the tokenizer refuses the text.
    pub fn encode(&self, text: &str, cut: GuideCut) -> Result<Vec<i64>, TokenizerError> {
        let cleaned = match self.kind {
            GuideKind::Clip => Cow::Borrowed(text),
            GuideKind::Siglip => Cow::Owned(canonicalize(text)),
        };
        let encoding =
            guarded(|| self.inner.encode(cleaned, true)).map_err(|e| TokenizerError::encode(text, e))?;
        let mut ids: Vec<i64> = encoding.get_ids().iter().map(|&id| i64::from(id)).collect();
        if ids.last() != Some(&self.end_id) {
            ids.push(self.end_id);
        }
        if ids.len() > self.positions {
            match cut {
                GuideCut::KeepEnd => {
                    ids.truncate(self.positions - 1);
                    ids.push(self.end_id);
                }
                GuideCut::DropEnd => ids.truncate(self.positions),
                GuideCut::Whole => {}
            }
        }
        Ok(ids)
    }

    /// Which family of towers this serves.
    pub fn kind(&self) -> GuideKind {
        self.kind
    }

    /// The id that fills up a row.
    pub fn pad_id(&self) -> i64 {
        self.pad_id
    }

    /// The id that ends a text.
    pub fn end_id(&self) -> i64 {
        self.end_id
    }

    /// The most ids the tower takes.
    pub fn positions(&self) -> usize {
        self.positions
    }
}

/// SigLIP's canonical form: lower case, no ASCII punctuation, single spaces, none at the end.
///
/// The reference marks the beginning of the text before it takes the punctuation out, so that a text which
/// then begins with a space has a word mark of its own there; that is kept.
fn canonicalize(text: &str) -> String {
    const WORD_MARK: char = '\u{2581}';
    let text = text.replace(WORD_MARK, " ").to_lowercase();
    let kept: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let words = kept.split_whitespace().collect::<Vec<_>>().join(" ");
    match kept.starts_with(char::is_whitespace) && !words.is_empty() {
        true => format!("{WORD_MARK}{words}"),
        false => words,
    }
}

/// SigLIP where the class, the model type or the files say so, else CLIP.
fn kind_of(dir: &Path, config: &TokenizerConfig) -> Result<GuideKind, TokenizerError> {
    let model: Option<Value> = read_optional(&dir.join("config.json"))?;
    let model_type = model.as_ref().and_then(|m| m["model_type"].as_str()).unwrap_or_default();
    let siglip = config.is_class("SiglipTokenizer") || model_type.contains("siglip");
    let by_files = config.class.is_none() && dir.join("spiece.model").exists();
    Ok(if siglip || by_files { GuideKind::Siglip } else { GuideKind::Clip })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/conversations/tokenizers/clip");

    fn golden() -> Vec<(String, Value)> {
        let path = format!("{CLIP}/../../tokenization.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cases =
            golden["clip_guides"].as_array().unwrap().iter().chain(golden["clip_texts"].as_array().unwrap());
        let text =
            |case: &Value| case.get("guide_text").unwrap_or(&case["text"]).as_str().unwrap().to_owned();
        cases.map(|case| (text(case), case.clone())).collect()
    }

    fn ids(value: &Value) -> Vec<i64> {
        serde_json::from_value(value.clone()).unwrap()
    }

    /// A folder with only the older files of the fixture.
    fn old_files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
            std::fs::copy(format!("{CLIP}/{name}"), dir.path().join(name)).unwrap();
        }
        dir
    }

    #[test]
    fn clip_ids_equal_the_references() {
        let old = old_files();
        for dir in [Path::new(CLIP), old.path()] {
            let tokenizer = GuideTokenizer::from_dir(dir, None).unwrap();
            assert_eq!((tokenizer.kind(), tokenizer.positions()), (GuideKind::Clip, 77));
            for (text, case) in golden() {
                assert_eq!(tokenizer.encode(&text, GuideCut::Whole).unwrap(), ids(&case["ids"]), "{text:?}");
                if case["ids_cut_77"].is_array() {
                    let cut = tokenizer.encode(&text, GuideCut::DropEnd).unwrap();
                    assert_eq!(cut, ids(&case["ids_cut_77"]), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn a_long_guide_keeps_its_end() {
        let tokenizer = GuideTokenizer::from_dir(CLIP, Some(10)).unwrap();
        let text = "word ".repeat(50);
        let whole = tokenizer.encode(&text, GuideCut::Whole).unwrap();
        let cut = tokenizer.encode(&text, GuideCut::KeepEnd).unwrap();
        assert_eq!(cut.len(), 10);
        assert_eq!(cut[..9], whole[..9]);
        assert_eq!(cut[9], tokenizer.end_id());
        assert_ne!(tokenizer.encode(&text, GuideCut::DropEnd).unwrap()[9], tokenizer.end_id());
    }

    #[test]
    fn siglip_is_known_by_its_class() {
        // Any vocabulary will do: the class in the config makes it a SigLIP tokenizer.
        let dir = tempfile::tempdir().unwrap();
        let from = format!("{CLIP}/../llama/tokenizer.json");
        std::fs::copy(from, dir.path().join("tokenizer.json")).unwrap();
        let config = r#"{"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>"}"#;
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let tokenizer = GuideTokenizer::from_dir(dir.path(), None).unwrap();
        assert_eq!((tokenizer.kind(), tokenizer.positions()), (GuideKind::Siglip, 64));
        let [one, other] =
            ["A cat!", "a  CAT"].map(|text| tokenizer.encode(text, GuideCut::KeepEnd).unwrap());
        assert_eq!(one, other);
        assert_eq!(one.last(), Some(&tokenizer.end_id()));
    }

    #[test]
    fn siglip_text_is_bare_words() {
        assert_eq!(canonicalize("A Photo, of: a CAT's  tail!\n"), "a photo of a cats tail");
        // The word mark of a text that begins with a space stays, as in the reference.
        assert_eq!(canonicalize("  A photo"), "\u{2581}a photo");
        assert_eq!(canonicalize("?!"), "");
    }

    proptest::proptest! {
        #[test]
        fn a_canonical_text_stays(text in "\\PC*") {
            let canonical = canonicalize(&text);
            proptest::prop_assert_eq!(canonicalize(&canonical), canonical);
        }
    }

    #[test]
    fn an_empty_folder_says_what_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let error = GuideTokenizer::from_dir(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("merges.txt"), "{error}");
        std::fs::write(dir.path().join("config.json"), r#"{"model_type": "siglip"}"#).unwrap();
        let error = GuideTokenizer::from_dir(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("spiece.model"), "{error}");
    }
}
