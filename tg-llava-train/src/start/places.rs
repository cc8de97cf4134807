//! A run must not write where it reads.

use std::path::{Path, PathBuf};

use super::{ModelSetup, StartError};
use crate::config::{Bridges, TrainConfig};

/// Refuses an `output_dir` that is, or lies in, a folder whose files the run starts from, and a start that is one of
/// the checkpoints that the run would rotate.
///
/// # Errors
/// [`StartError::WritesWhereItReads`] with the first such folder.
pub(super) fn check(config: &TrainConfig, setup: &ModelSetup) -> Result<(), StartError> {
    let output = real(&config.output_dir);
    for (key, path) in inputs(config, setup) {
        let input = real(&path);
        let rotated = input.strip_prefix(&output).is_ok_and(|below| {
            let first = below.components().next().map(|name| name.as_os_str().to_string_lossy().into_owned());
            first.is_some_and(|name| name.starts_with("checkpoint-"))
        });
        if output.starts_with(&input) || rotated {
            let output_dir = config.output_dir.clone();
            return Err(StartError::WritesWhereItReads { output_dir, key, path });
        }
    }
    Ok(())
}

/// The folders that hold what the run starts from, by the keys that name them.
fn inputs(config: &TrainConfig, setup: &ModelSetup) -> Vec<(&'static str, PathBuf)> {
    let model = &config.model;
    let mut inputs = vec![("model.path", model.path.clone())];
    inputs.extend(setup.base.clone().map(|base| ("the base of model.path", base)));
    match &model.bridges {
        None => {}
        Some(Bridges::Folder(folder)) => inputs.push(("model.bridges", folder.clone())),
        Some(Bridges::Files(files)) => {
            let files = [&files.projector, &files.feature_guide, &files.detail_perceiver];
            let folders = files.into_iter().flatten().filter_map(|file| file.parent());
            inputs.extend(folders.map(|folder| ("model.bridges", folder.to_path_buf())));
        }
    }
    for (key, tower) in [("model.vision_tower", &model.vision_tower), ("model.text_tower", &model.text_tower)]
    {
        // Names of presets are no folders.
        inputs.extend(tower.iter().map(PathBuf::from).filter(|path| path.is_dir()).map(|path| (key, path)));
    }
    inputs
}

/// `path` with all links followed, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let known = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match known {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(Path::new(""))),
        None => path,
    }
}
