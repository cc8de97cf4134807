//! SentencePiece models as objects of the `tokenizers` crate, which then run them.

use std::path::Path;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip as StripDecoder;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Prepend, Replace, Sequence, Strip};
use tokenizers::processors::template::{Template, TemplateProcessing};
use tokenizers::{AddedToken, Result as TkResult, Tokenizer};

use super::super::TokenizerError;
use super::super::config::TokenizerConfig;
use super::super::text::{Prefix, WORD_START};
use super::proto::{Algorithm, PieceKind, SentencePieceModel};

/// Llama's tokenizer as transformers' slow class gives it, and where it puts the leading space.
///
/// The special tokens that `config` leaves open are filled in from the model's own pieces.
pub(in super::super) fn llama(
    path: &Path,
    config: &mut TokenizerConfig,
) -> Result<(Tokenizer, Prefix), TokenizerError> {
    let model = SentencePieceModel::read(path)?;
    let has = |text: &str| model.pieces.iter().any(|piece| piece.text == text).then(|| text.to_owned());
    config.bos = config.bos.take().or_else(|| has("<s>"));
    config.eos = config.eos.take().or_else(|| has("</s>"));
    config.unk = config.unk.take().or_else(|| model.unknown().map(|id| model.pieces[id].text.clone()));
    config.class.get_or_insert_with(|| "LlamaTokenizer".into());

    let spaced = model.add_dummy_prefix && config.add_prefix_space.unwrap_or(true);
    let (each, prefix) = match (spaced, config.legacy.unwrap_or(true)) {
        (false, _) => (false, Prefix::Own),
        (true, true) => (true, Prefix::Own),
        (true, false) => (false, Prefix::FirstSection),
    };
    let build = || -> TkResult<Tokenizer> {
        let mut tokenizer = base(&model, each)?;
        frame(&mut tokenizer, config)?;
        Ok(tokenizer)
    };
    let mut tokenizer = build().map_err(|e| TokenizerError::malformed(path, e))?;
    config.add_missing(&mut tokenizer, path)?;
    Ok((tokenizer, prefix))
}

/// SigLIP's tokenizer: a space before the text, the end token behind it.
pub(in super::super) fn siglip(path: &Path, config: &TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
    let model = SentencePieceModel::read(path)?;
    let end = config.eos.clone().unwrap_or_else(|| "</s>".into());
    let build = || -> TkResult<Tokenizer> {
        let mut tokenizer = base(&model, true)?;
        put_around(&mut tokenizer, None, Some(&end))?;
        Ok(tokenizer)
    };
    build().map_err(|e| TokenizerError::malformed(path, e))
}

/// Puts BOS and EOS around a text as Llama's `add_bos_token` (default on) and `add_eos_token` (off) say.
pub(in super::super) fn frame(tokenizer: &mut Tokenizer, config: &TokenizerConfig) -> TkResult<()> {
    let bos = config.bos.as_deref().filter(|_| config.add_bos.unwrap_or(true));
    let eos = config.eos.as_deref().filter(|_| config.add_eos.unwrap_or(false));
    put_around(tokenizer, bos, eos)
}

fn put_around(tokenizer: &mut Tokenizer, before: Option<&str>, behind: Option<&str>) -> TkResult<()> {
    let mut special = Vec::new();
    for token in before.into_iter().chain(behind) {
        let id = tokenizer.token_to_id(token).ok_or_else(|| format!("the vocabulary lacks {token:?}"))?;
        if !special.iter().any(|(known, _)| known == token) {
            special.push((token.to_owned(), id));
        }
    }
    let pieces: Vec<&str> = before.into_iter().chain(["$A"]).chain(behind).collect();
    let template = Template::try_from(pieces)?;
    let processor = TemplateProcessing::builder().single(template).special_tokens(special).build()?;
    tokenizer.with_post_processor(Some(processor));
    Ok(())
}

/// Model, normalizer, decoder and special tokens; a space before each section of text where `prefix`.
fn base(model: &SentencePieceModel, prefix: bool) -> TkResult<Tokenizer> {
    let mut tokenizer = Tokenizer::new(match model.algorithm {
        Algorithm::Bpe => bpe(model)?,
        Algorithm::Unigram => unigram(model)?,
    });
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if !model.charsmap.is_empty() {
        steps.push(Precompiled::from(&model.charsmap)?.into());
    }
    if model.remove_extra_whitespaces {
        steps.push(Strip::new(true, true).into());
        steps.push(Replace::new(ReplacePattern::Regex(" {2,}".into()), " ")?.into());
    }
    if prefix {
        steps.push(Prepend::new(WORD_START.into()).into());
    }
    steps.push(Replace::new(ReplacePattern::String(" ".into()), WORD_START)?.into());
    tokenizer.with_normalizer(Some(Sequence::new(steps)))?;

    let spaces = Replace::new(ReplacePattern::String(WORD_START.into()), " ")?;
    let strip = StripDecoder::new(' ', 1, 0);
    let steps = vec![spaces.into(), ByteFallback::new().into(), Fuse::new().into(), strip.into()];
    tokenizer.with_decoder(Some(Decoders::new(steps)));

    for piece in &model.pieces {
        match piece.kind {
            PieceKind::Unknown | PieceKind::Control => {
                tokenizer
                    .add_special_tokens([AddedToken::from(piece.text.clone(), true).normalized(false)])?;
            }
            PieceKind::UserDefined => {
                tokenizer.add_tokens([AddedToken::from(piece.text.clone(), false).normalized(false)])?;
            }
            PieceKind::Normal | PieceKind::Unused | PieceKind::Byte => {}
        }
    }
    Ok(tokenizer)
}

/// BPE: every way to cut a piece into two others is a merge, ranked by the piece's score.
fn bpe(model: &SentencePieceModel) -> TkResult<ModelWrapper> {
    let vocab: Vocab = model.pieces.iter().zip(0..).map(|(piece, id)| (piece.text.clone(), id)).collect();
    let mut ranked = Vec::new();
    for piece in model.pieces.iter().filter(|piece| piece.kind == PieceKind::Normal) {
        let mut cuts: Vec<_> = piece
            .text
            .char_indices()
            .skip(1)
            .map(|(at, _)| piece.text.split_at(at))
            .filter_map(|(left, right)| Some((vocab.get(left)?, vocab.get(right)?, left, right)))
            .collect();
        cuts.sort_unstable();
        ranked.extend(cuts.into_iter().map(|(_, _, left, right)| (piece.score, left, right)));
    }
    // Stable: pieces of equal score keep the order of the vocabulary.
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let merges: Merges =
        ranked.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect();
    let bytes = model.pieces.iter().any(|piece| piece.kind == PieceKind::Byte);
    let mut builder = BPE::builder().vocab_and_merges(vocab, merges).fuse_unk(true).byte_fallback(bytes);
    if let Some(unknown) = model.unknown() {
        builder = builder.unk_token(model.pieces[unknown].text.clone());
    }
    Ok(builder.build()?.into())
}

fn unigram(model: &SentencePieceModel) -> TkResult<ModelWrapper> {
    let scored = model.pieces.iter().map(|piece| (piece.text.clone(), f64::from(piece.score))).collect();
    let bytes = model.pieces.iter().any(|piece| piece.kind == PieceKind::Byte);
    Ok(Unigram::from(scored, model.unknown(), bytes)?.into())
}
