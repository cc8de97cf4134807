//! Looks into a folder of any kind.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tg_llava_core::Error;
use tg_llava_core::assistant::Codecs;
use tg_llava_core::config::{
    GenerationDefaults, ModelConfig, PaddingSide, folder_name, locate_tower, read_model_config_over,
    read_tower_configs,
};
use tg_llava_core::conversation::Template;
use tg_llava_core::weights::{
    Adapter, Component, Gguf, TensorSource, WeightsError, base_of, folder_has_bridges, is_unused_key,
    open_bridges, open_sources, reference_tensors,
};

use super::compare::{Expected, compare};
use super::contents::{Contents, Kind};
use super::describe;
use crate::device;
use crate::failure::Failure;

/// Looks into `dir`, which may be a GGUF file; `base` is a decoder, where `dir` holds none or another shall take its place.
///
/// # Errors
/// Where config.json or a weights file cannot be read.
pub fn inspect(dir: &Path, base: Option<&Path>) -> Result<Contents, Failure> {
    let mut contents = match tower_family(dir) {
        Some(family) => tower(dir, &family)?,
        None if dir.is_file() => gguf(dir)?,
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
    read_tower_configs(dir)?;
    let mut contents = empty(dir, Kind::Tower);
    contents.description.push(("model type", family.to_owned()));
    let mut source = TensorSource::default();
    source.merge(TensorSource::from_folder(dir)?, |key| {
        let of_text = key.starts_with("text_model.");
        let part = if of_text { Component::TextTower } else { Component::VisionTower };
        Some(format!("{}{}.{key}", part.key_prefix(), part.name()))
    });
    compare(dir, &source, &Expected { shapes: None, tied: false }, &mut contents);
    Ok(contents)
}

/// A GGUF file is compared with what its own metadata describes.
fn gguf(file: &Path) -> Result<Contents, Failure> {
    let gguf = Gguf::open(file)?;
    let llm = gguf.config().clone();
    let (max_length, tied) = (llm.max_position_embeddings, llm.tie_word_embeddings);
    let padding_side = PaddingSide::Right;
    let config = ModelConfig { llm, multimodal: None, conversation: None, max_length, padding_side };
    let mut contents = empty(file, Kind::Gguf);
    contents.description.extend(gguf.name().map(|name| ("name", name.to_owned())));
    contents.description.extend(describe::model(&config));
    let expected = Expected { shapes: Some(expected_shapes(&config, Kind::Gguf)?), tied };
    compare(file.parent().unwrap_or(file), &gguf.into(), &expected, &mut contents);
    Ok(contents)
}

fn model(dir: &Path, base: Option<&Path>) -> Result<Contents, Failure> {
    // Whatever hinders this is told when the files are opened.
    let found = base_of(dir, base).ok().flatten();
    let base = base.or(found.as_deref());
    let config = read_model_config_over(dir, base)?;
    let has_stage1 = folder_has_bridges(dir) && !TensorSource::folder_has_weights(dir);
    let (kind, source) = match open_sources(dir, &config, base) {
        Ok(source) if source.adapter().is_some() => (Kind::Adapter, source),
        Ok(source) if has_stage1 => (Kind::Stage1, source),
        Ok(source) if config.multimodal.is_none() => (Kind::PlainDecoder, source),
        Ok(source) => (Kind::Full, source),
        Err(Error::Weights(WeightsError::NeedsBase { .. })) if Adapter::is_in(dir) => {
            let adapter = Adapter::open(dir)?;
            (Kind::AdapterWithoutBase, adapter.whole().clone().with_adapter(adapter))
        }
        Err(Error::Weights(WeightsError::NeedsBase { .. })) => {
            (Kind::Stage1WithoutBase, open_bridges(&[dir.to_path_buf()])?)
        }
        Err(error) => return Err(error.into()),
    };
    let mut contents = empty(dir, kind);
    let tied = config.llm.tie_word_embeddings;
    let expected = Expected { shapes: Some(expected_shapes(&config, kind)?), tied };
    compare(dir, &source, &expected, &mut contents);
    contents.description = describe::model(&config);
    if let Some(adapter) = source.adapter() {
        contents.description.push(("adapter", describe::adapter(adapter)));
        if let (Kind::Adapter, Some(shapes)) = (kind, &expected.shapes) {
            contents.problems.extend(adapter.problems(shapes)?);
        }
    }
    if !kind.lacks_base() {
        // A GGUF file brings no tokenizer.
        let base = base.filter(|base| base.is_dir());
        small_files(dir, base, &config, &mut contents);
    }
    Ok(contents)
}

/// Keys and shapes that config.json asks for.
fn expected_shapes(config: &ModelConfig, kind: Kind) -> Result<BTreeMap<String, Vec<usize>>, Failure> {
    let model = config.init(&device::any()?)?;
    let wanted = |key: &str| {
        let elsewhere = kind.lacks_base()
            && Component::of_key(key).is_none_or(|part| !Component::BRIDGES.contains(&part));
        !elsewhere && !is_unused_key(key)
    };
    let tensors = reference_tensors(&model);
    let shapes = tensors.iter().filter(|(key, _)| wanted(key));
    Ok(shapes.map(|(key, tensor)| (key.clone(), tensor.shape().to_vec())).collect())
}

/// Notes what else a conversation needs, or why it cannot be had. `base` is where the decoder is.
fn small_files(dir: &Path, base: Option<&Path>, config: &ModelConfig, contents: &mut Contents) {
    if let Err(error) = GenerationDefaults::read(dir) {
        contents.problems.push(error.to_string());
    }
    let codecs = match Codecs::load(dir, base, config) {
        Ok(codecs) => codecs,
        Err(error) => return contents.problems.push(error.to_string()),
    };
    let own = tokenizer_file(dir).map(|file| (dir, file));
    let found = own.or_else(|| base.and_then(|base| Some((base, tokenizer_file(base)?))));
    if let Some((_, file)) = found {
        contents.description.push(("tokenizer", format!("{file}, {} ids", codecs.tokenizer.vocab_size())));
    }
    match Template::for_model(config.conversation.as_deref(), &folder_name(dir), &codecs.tokenizer) {
        Ok(template) => {
            let why = if config.conversation.is_some() { "by config.json" } else { "guessed" };
            contents.description.push(("template", format!("{} ({why})", template.name)));
        }
        Err(error) => contents.problems.push(error.to_string()),
    }
    if let (Some(mm), Some(guide)) = (&config.multimodal, &codecs.guide_tokenizer) {
        let rows = mm.text.as_ref().map_or(0, |text| text.vocab_size);
        if usize::try_from(guide.end_id()).is_ok_and(|end| end >= rows) {
            let end = guide.end_id();
            contents.problems.push(format!(
                "guide texts end in id {end}, which is outside the text tower's vocabulary of {rows}"
            ));
        }
        let place = locate_tower(dir, base, &mm.towers.text);
        let place = place.unwrap_or_else(|| dir.join(&mm.towers.text));
        let place = place.strip_prefix(dir).unwrap_or(&place);
        contents.description.push(("guide tokenizer", format!("in {}", place.display())));
    }
}

/// The file that a folder's tokenizer is built from.
fn tokenizer_file(dir: &Path) -> Option<&'static str> {
    let files = [
        ("tokenizer.json", "tokenizer.json"),
        ("tokenizer.model", "tokenizer.model"),
        ("vocab.json", "vocab.json and merges.txt"),
    ];
    files.into_iter().find(|(file, _)| dir.join(file).is_file()).map(|(_, title)| title)
}
