//! The three files that stage 1 writes: projector, feature guide, detail perceiver.

use std::path::{Path, PathBuf};

use super::pytorch::write_state_dict;
use super::save::{SaveOptions, carry_over, reference_tensors, write_file};
use super::{TensorSource, WeightsError};
use crate::config::{read_json, write_model_config};
use crate::error::{Error, Result};
use crate::model::TgLlava;

/// Names of the files without extension, which are the parts' keys in the reference.
pub(super) const BRIDGES: [&str; 3] = ["mm_projector", "mm_cross_attn", "mm_patch_encoder"];

/// Opens stage-1 files, `.safetensors` or the reference's `.bin`, under the keys of a full checkpoint. A
/// path may name a folder that holds some of them.
///
/// # Errors
/// Where a file is missing or damaged, or a folder holds none.
pub fn open_bridges(paths: &[PathBuf]) -> Result<TensorSource> {
    let mut source = TensorSource::default();
    for path in paths {
        if !path.is_dir() {
            let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            source.merge(TensorSource::from_file(path)?, |key| Some(bridge_key(&stem, key)));
            continue;
        }
        let before = source.len();
        for name in BRIDGES {
            if let Some(file) = bridge_file(path, name) {
                source.merge(TensorSource::from_file(&file)?, |key| Some(bridge_key(name, key)));
            }
        }
        if source.len() == before {
            return Err(WeightsError::NoWeights { dir: path.clone() }.into());
        }
    }
    Ok(source)
}

/// The file of one part in `dir`.
pub(super) fn bridge_file(dir: &Path, name: &str) -> Option<PathBuf> {
    let files = ["safetensors", "bin"].map(|extension| dir.join(format!("{name}.{extension}")));
    files.into_iter().find(|file| file.is_file())
}

/// Stage-1 keys are stored with or without the `model.` prefix, and by other tools without the part's name.
pub(super) fn bridge_key(part: &str, key: &str) -> String {
    if key.starts_with("model.") {
        key.to_owned()
    } else if key.starts_with(part) {
        format!("model.{key}")
    } else {
        format!("model.{part}.{key}")
    }
}

/// Writes what stage 1 leaves: `config.json`, and for each bridge of the model a `.safetensors` file and the
/// `.bin` file that the reference's code reads, both with the reference's keys. `base` is the folder of the decoder, which config.json then names.
///
/// # Errors
/// Where a file cannot be written.
pub fn save_bridges(model: &TgLlava, dir: &Path, base: &Path, options: &SaveOptions) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let config = match &options.template {
        Some(template) => {
            carry_over(template, dir)?;
            Some(read_json(&template.join("config.json"))?)
        }
        None => None,
    };
    let mut config: serde_json::Value = config.unwrap_or_else(|| serde_json::json!({}));
    config["_name_or_path"] = serde_json::json!(base.to_string_lossy());
    write_model_config(model.config(), Some(config), dir)?;
    let mut tensors = reference_tensors(model);
    for name in BRIDGES {
        let prefix = format!("model.{name}.");
        let rest = tensors.split_off(&prefix);
        let (ours, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|(key, _)| key.starts_with(&prefix));
        tensors.extend(others);
        if !ours.is_empty() {
            let ours = ours.into_iter().collect();
            write_state_dict(&dir.join(format!("{name}.bin")), &ours)?;
            write_file(&dir.join(format!("{name}.safetensors")), ours)?;
        }
    }
    Ok(())
}
