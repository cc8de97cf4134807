//! Looks into a folder of any kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tg_llava_core::Error;
use tg_llava_core::config::{ModelConfig, locate_tower, read_model_config};
use tg_llava_core::conversation::Template;
use tg_llava_core::tokenizer::{GuideTokenizer, TextTokenizer};
use tg_llava_core::weights::{TensorSource, WeightsError, is_unused_key, open_sources, reference_tensors};

use super::compare::{Expected, compare};
use super::contents::{Contents, Kind, Part};
use super::describe;
use crate::device;
use crate::failure::Failure;

/// The files that stage 1 writes, by the part's name in the keys.
const STAGE1: [&str; 3] = ["mm_projector", "mm_cross_attn", "mm_patch_encoder"];

/// Looks into `dir`; `base` is the decoder's folder, where `dir` holds stage-1 files alone.
///
/// # Errors
/// Where config.json or a weights file cannot be read.
pub fn inspect(dir: &Path, base: Option<&Path>) -> Result<Contents, Failure> {
    let mut contents = match tower_family(dir) {
        Some(family) => tower(dir, &family)?,
        None => model(dir, base)?,
    };
    contents.complete = contents.problems.is_empty()
        && contents.missing.is_empty()
        && contents.unknown.is_empty()
        && contents.misshapen.is_empty()
        && contents.not_float.is_empty();
    Ok(contents)
}

fn empty(dir: &Path, kind: Kind) -> Contents {
    Contents {
        folder: dir.to_path_buf(),
        kind,
        complete: false,
        description: Vec::new(),
        parts: BTreeMap::new(),
        files: Vec::new(),
        problems: Vec::new(),
        missing: Vec::new(),
        unknown: Vec::new(),
        misshapen: Vec::new(),
        not_float: Vec::new(),
        unused: Vec::new(),
        tensors: Vec::new(),
    }
}

/// `model_type` of a folder that holds towers instead of a decoder.
fn tower_family(dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(dir.join("config.json")).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    let kind = config.get("model_type")?.as_str()?;
    (kind.starts_with("clip") || kind.starts_with("siglip")).then(|| kind.to_owned())
}

/// Towers are compared with a configuration only inside a checkpoint: on their own, only one of the two may be
/// wanted.
fn tower(dir: &Path, family: &str) -> Result<Contents, Failure> {
    let mut contents = empty(dir, Kind::Tower);
    contents.description.push(("model type", family.to_owned()));
    let mut source = TensorSource::default();
    source.merge(TensorSource::from_folder(dir)?, |key| {
        let part = if key.starts_with("text_model.") { "text_tower" } else { "vision_tower" };
        Some(format!("model.{part}.{part}.{key}"))
    });
    compare(dir, &source, &Expected { shapes: None, tied: false }, &mut contents);
    Ok(contents)
}

fn model(dir: &Path, base: Option<&Path>) -> Result<Contents, Failure> {
    let config = read_model_config(dir)?;
    let has_stage1 = stage1_files(dir).next().is_some() && !TensorSource::folder_has_weights(dir);
    let (kind, source) = match open_sources(dir, &config, base) {
        Ok(source) if has_stage1 => (Kind::Stage1, source),
        Ok(source) if config.multimodal.is_none() => (Kind::PlainDecoder, source),
        Ok(source) => (Kind::Full, source),
        Err(Error::Weights(WeightsError::NeedsBase { .. })) => (Kind::Stage1WithoutBase, stage1_source(dir)?),
        Err(error) => return Err(error.into()),
    };
    let mut contents = empty(dir, kind);
    let tied = config.llm.tie_word_embeddings;
    let expected = Expected { shapes: Some(expected_shapes(&config, kind)?), tied };
    compare(dir, &source, &expected, &mut contents);
    contents.description = describe::model(&config);
    if kind != Kind::Stage1WithoutBase {
        let decoder = source.get("model.embed_tokens.weight").and_then(|tensor| tensor.path.parent());
        tokenizers(dir, decoder.or(base), &config, &mut contents);
    }
    Ok(contents)
}

/// Keys and shapes that config.json asks for.
fn expected_shapes(config: &ModelConfig, kind: Kind) -> Result<BTreeMap<String, Vec<usize>>, Failure> {
    let model = config.init(&device::any()?)?;
    let wanted = |key: &str| {
        let elsewhere = kind == Kind::Stage1WithoutBase
            && matches!(Part::of(key), Part::Llm | Part::VisionTower | Part::TextTower);
        !elsewhere && !is_unused_key(key)
    };
    let tensors = reference_tensors(&model);
    let shapes = tensors.iter().filter(|(key, _)| wanted(key));
    Ok(shapes.map(|(key, tensor)| (key.clone(), tensor.shape().to_vec())).collect())
}

fn stage1_files(dir: &Path) -> impl Iterator<Item = (&'static str, PathBuf)> {
    STAGE1.into_iter().filter_map(move |part| {
        let files = ["safetensors", "bin"].map(|extension| dir.join(format!("{part}.{extension}")));
        files.into_iter().find(|file| file.is_file()).map(|file| (part, file))
    })
}

/// The stage-1 files alone, under the keys of a full checkpoint.
fn stage1_source(dir: &Path) -> Result<TensorSource, Failure> {
    let mut source = TensorSource::default();
    for (part, file) in stage1_files(dir) {
        source.merge(TensorSource::from_file(&file)?, |key| {
            Some(match key {
                _ if key.starts_with("model.") => key.to_owned(),
                _ if key.starts_with(part) => format!("model.{key}"),
                _ => format!("model.{part}.{key}"),
            })
        });
    }
    Ok(source)
}

/// Notes tokenizers and template, or why they cannot be had. `base` is where the decoder is.
fn tokenizers(dir: &Path, base: Option<&Path>, config: &ModelConfig, contents: &mut Contents) {
    let own = TextTokenizer::from_dir(dir).map(|tokenizer| (dir, tokenizer));
    let found = match (own, base) {
        (Err(_), Some(base)) => TextTokenizer::from_dir(base).map(|tokenizer| (base, tokenizer)),
        (own, _) => own,
    };
    match found {
        Ok((place, tokenizer)) => {
            let file = tokenizer_file(place);
            contents.description.push(("tokenizer", format!("{file}, {} ids", tokenizer.vocab_size())));
            let folder = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            match Template::for_model(config.conversation.as_deref(), &folder, &tokenizer) {
                Ok(template) => {
                    let why = if config.conversation.is_some() { "by config.json" } else { "guessed" };
                    contents.description.push(("template", format!("{} ({why})", template.name)));
                }
                Err(error) => contents.problems.push(error.to_string()),
            }
        }
        Err(error) => contents.problems.push(error.to_string()),
    }
    let Some(mm) = &config.multimodal else { return };
    let Some(text) = &mm.text else { return };
    let place = locate_tower(dir, &mm.towers.text).unwrap_or_else(|| dir.join(&mm.towers.text));
    match GuideTokenizer::from_dir(&place, Some(text.max_position_embeddings)) {
        Ok(_) => {
            let place = place.strip_prefix(dir).unwrap_or(&place);
            contents.description.push(("guide tokenizer", format!("in {}", place.display())));
        }
        Err(error) => contents.problems.push(format!("guide texts cannot be read: {error}")),
    }
}

/// The file that a folder's tokenizer is built from.
fn tokenizer_file(dir: &Path) -> &'static str {
    let files = ["tokenizer.json", "tokenizer.model"];
    files.into_iter().find(|file| dir.join(file).is_file()).unwrap_or("vocab.json and merges.txt")
}
