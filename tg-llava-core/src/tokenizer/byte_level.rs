//! Byte-level BPE from `vocab.json` and `merges.txt`: GPT-2, Qwen2 and CLIP.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{
    Lowercase, NFC, NormalizerWrapper, Replace, Sequence as Normalizers, replace::ReplacePattern,
};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Result as TkResult, SplitDelimiterBehavior, Tokenizer};

use super::TokenizerError;
use super::config::{TokenizerConfig, read_optional};

/// How Qwen2 cuts text into words before merging.
const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How CLIP cuts (lower-cased) text into words before merging.
const CLIP_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Ends every word in CLIP's vocabulary.
const CLIP_WORD_END: &str = "</w>";

/// The names of CLIP's start and end tokens, unless its config says otherwise.
pub(super) const CLIP_MARKS: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];

/// A language model's tokenizer: Qwen2's rules where the config names that class, else GPT-2's.
pub(super) fn language_model(dir: &Path, config: &TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
    let (vocab, merges) = read(dir, config)?;
    let path = dir.join("vocab.json");
    let build = || -> TkResult<Tokenizer> {
        let mut tokenizer = Tokenizer::new(BPE::builder().vocab_and_merges(vocab, merges).build()?);
        if config.is_class("Qwen2Tokenizer") {
            tokenizer.with_normalizer(Some(NFC))?;
            let words =
                Split::new(SplitPattern::Regex(QWEN2_WORDS.into()), SplitDelimiterBehavior::Isolated, false)?;
            let bytes = ByteLevel::new(false, true, false);
            tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
        } else {
            let space = config.add_prefix_space.unwrap_or(false);
            tokenizer.with_pre_tokenizer(Some(ByteLevel::new(space, true, true)));
        }
        tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
        tokenizer.with_post_processor(Some(ByteLevel::new(true, false, true)));
        Ok(tokenizer)
    };
    let mut tokenizer = build().map_err(|e| TokenizerError::malformed(&path, e))?;
    for name in [&config.bos, &config.eos, &config.pad, &config.unk].into_iter().flatten() {
        if tokenizer.token_to_id(name).is_some() {
            let token = AddedToken::from(name.clone(), true).normalized(false);
            tokenizer.add_special_tokens([token]).map_err(|e| TokenizerError::malformed(&path, e))?;
        }
    }
    for token in config.added.values() {
        let added = if token.special {
            tokenizer.add_special_tokens([token.clone()])
        } else {
            tokenizer.add_tokens([token.clone()])
        };
        added.map_err(|e| TokenizerError::malformed(&path, e))?;
    }
    Ok(tokenizer)
}

/// The tokenizer of a CLIP text tower, framed by its start and end tokens.
pub(super) fn clip(dir: &Path, config: &TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
    let (vocab, merges) = read(dir, config)?;
    let path = dir.join("vocab.json");
    let start = config.bos.clone().unwrap_or_else(|| CLIP_MARKS[0].into());
    let end = config.eos.clone().unwrap_or_else(|| CLIP_MARKS[1].into());
    let id = |token: &str| {
        let missing = || TokenizerError::malformed(&path, format!("the vocabulary lacks {token:?}"));
        vocab.get(token).copied().ok_or_else(missing)
    };
    let (start_id, end_id) = (id(&start)?, id(&end)?);
    let unk = config.unk.clone().filter(|unk| vocab.contains_key(unk)).unwrap_or_else(|| end.clone());
    let build = || -> TkResult<Tokenizer> {
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .unk_token(unk)
            .end_of_word_suffix(CLIP_WORD_END.into())
            .build()?;
        let mut tokenizer = Tokenizer::new(model);
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
        let steps: Vec<NormalizerWrapper> = vec![NFC.into(), spaces.into(), Lowercase.into()];
        tokenizer.with_normalizer(Some(Normalizers::new(steps)))?;
        let words =
            Split::new(SplitPattern::Regex(CLIP_WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
        let steps: Vec<PreTokenizerWrapper> = vec![words.into(), ByteLevel::new(false, true, true).into()];
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(steps)));
        tokenizer.add_special_tokens([
            AddedToken::from(start.clone(), true),
            AddedToken::from(end.clone(), true),
        ])?;
        let frame = RobertaProcessing::new((end, end_id), (start, start_id));
        tokenizer.with_post_processor(Some(frame.trim_offsets(false).add_prefix_space(false)));
        tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
        Ok(tokenizer)
    };
    build().map_err(|e| TokenizerError::malformed(&path, e))
}

/// The vocabulary, with the declared added tokens at their declared ids, and the merges.
fn read(dir: &Path, config: &TokenizerConfig) -> Result<(Vocab, Merges), TokenizerError> {
    let path = dir.join("vocab.json");
    let missing = |expected| TokenizerError::Missing { dir: dir.to_path_buf(), expected };
    let listed: HashMap<String, u32> =
        read_optional(&path)?.ok_or_else(|| missing("vocab.json with merges.txt"))?;
    let mut vocab: Vocab = listed.into_iter().collect();
    for (&id, token) in &config.added {
        if let Some(other) = vocab.insert(token.content.clone(), id).filter(|&other| other != id) {
            let reason = format!("{:?} has id {other} here and {id} among the added tokens", token.content);
            return Err(TokenizerError::malformed(&path, reason));
        }
    }
    let path = dir.join("merges.txt");
    let text = std::fs::read_to_string(&path).map_err(|e| TokenizerError::io(&path, e))?;
    let mut merges = Merges::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let wrong =
            |reason: String| TokenizerError::malformed(&path, format!("line {}: {reason}", number + 1));
        let (left, right) = line
            .split_once(' ')
            .ok_or_else(|| wrong(format!("expected two tokens with a space between, found {line:?}")))?;
        let whole = format!("{left}{right}");
        if let Some(token) = [left, right, &whole].into_iter().find(|token| !vocab.contains_key(*token)) {
            return Err(wrong(format!("token {token:?} is not in vocab.json")));
        }
        merges.push((left.into(), right.into()));
    }
    Ok((vocab, merges))
}
