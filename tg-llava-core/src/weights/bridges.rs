//! The three files that stage 1 writes: projector, feature guide, detail perceiver.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::pytorch::write_state_dict;
use super::save::{Save, SaveOptions, reference_tensors};
use super::shards::write_file;
use super::staging::is_half_moved;
use super::{Component, TensorSource, WeightsError};
use crate::config::{reference_to, write_model_config};
use crate::error::Result;
use crate::model::TgLlava;

/// Opens stage-1 files, `.safetensors` or the reference's `.bin`, under the keys of a full checkpoint. A
/// path may name a folder that holds some of them.
///
/// # Errors
/// Where a file is missing or damaged, or a folder holds none, or only some since a save into it was interrupted.
pub fn open_bridges(paths: &[PathBuf]) -> Result<TensorSource> {
    let mut source = TensorSource::default();
    for path in paths {
        if !path.is_dir() {
            let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            source.merge(TensorSource::from_file(path)?, |key| Some(bridge_key(&stem, key)));
            continue;
        }
        if is_half_moved(path) {
            // Without this, parts that are still missing would be taken for ones that the save did not have.
            let reason = "a save into this folder was interrupted; start the run that made it again, which finishes it".into();
            return Err(WeightsError::Damaged { path: path.clone(), reason }.into());
        }
        let found = bridges_in(path)?;
        if found.is_empty() {
            return Err(WeightsError::NoWeights { dir: path.clone() }.into());
        }
        source.merge(found, |key| Some(key.to_owned()));
    }
    Ok(source)
}

/// The stage-1 files that a folder holds.
pub(super) fn bridges_in(dir: &Path) -> Result<TensorSource> {
    let mut source = TensorSource::default();
    for stem in Component::BRIDGES.into_iter().filter_map(Component::bridge_stem) {
        if let Some(file) = bridge_file(dir, stem) {
            source.merge(TensorSource::from_file(&file)?, |key| Some(bridge_key(stem, key)));
        }
    }
    Ok(source)
}

/// Whether a folder holds any stage-1 file.
pub fn folder_has_bridges(dir: &Path) -> bool {
    let mut stems = Component::BRIDGES.into_iter().filter_map(Component::bridge_stem);
    stems.any(|stem| bridge_file(dir, stem).is_some())
}

/// The file of one part in `dir`.
fn bridge_file(dir: &Path, stem: &str) -> Option<PathBuf> {
    let files = ["safetensors", "bin"].map(|extension| dir.join(format!("{stem}.{extension}")));
    files.into_iter().find(|file| file.is_file())
}

/// Stage-1 keys are stored with or without the `model.` prefix, and by other tools without the part's name.
fn bridge_key(part: &str, key: &str) -> String {
    if key.starts_with("model.") {
        key.to_owned()
    } else if key.starts_with(part) {
        format!("model.{key}")
    } else {
        format!("model.{part}.{key}")
    }
}

/// Writes what stage 1 leaves: `config.json`, and for each bridge of the model a `.safetensors` file and the
/// `.bin` file that the reference's code reads, both with the reference's keys. `base` is the folder of the decoder,
/// which config.json then names. Other weights in `dir` go, as in [`save_model`](super::save_model).
///
/// # Errors
/// Where a file cannot be written, or `dir` is the decoder's own folder, whose weights would go.
pub fn save_bridges(model: &TgLlava, dir: &Path, base: &Path, options: &SaveOptions) -> Result<()> {
    if dir.canonicalize().is_ok_and(|dir| base.canonicalize().is_ok_and(|base| base == dir)) {
        let reason =
            "this is the folder of the decoder that the stage-1 files build on; save them in another".into();
        return Err(WeightsError::Write { path: dir.to_path_buf(), reason }.into());
    }
    let save = Save::begin(dir, options)?;
    let mut config = save.base.clone().unwrap_or_else(|| serde_json::json!({}));
    config["_name_or_path"] = serde_json::json!(reference_to(base));
    write_model_config(model.config(), Some(config), save.path())?;
    let mut by_bridge: BTreeMap<&str, BTreeMap<_, _>> = BTreeMap::new();
    for (key, tensor) in reference_tensors(model) {
        if let Some(stem) = Component::of_key(&key).and_then(Component::bridge_stem) {
            by_bridge.entry(stem).or_default().insert(key, tensor);
        }
    }
    for (stem, tensors) in by_bridge {
        write_state_dict(&save.path().join(format!("{stem}.bin")), &tensors)?;
        write_file(&save.path().join(format!("{stem}.safetensors")), tensors)?;
    }
    save.commit()
}
