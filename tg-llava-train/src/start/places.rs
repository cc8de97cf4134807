//! A run must not write where it reads.

use std::path::{Path, PathBuf};

use super::{ModelSetup, StartError};
use crate::config::{Bridges, TrainConfig};

/// The key that names stage-1 files.
const BRIDGES: &str = "model.bridges";

/// Refuses an `output_dir` that is, or lies in, a folder whose files the run starts from, and a start that is one of
/// the checkpoints that the run would rotate. Beside or above stage-1 files there is room: a save replaces those of
/// its own folder alone.
///
/// # Errors
/// [`StartError::WritesWhereItReads`] with the first such folder.
pub(super) fn check(config: &TrainConfig, setup: &ModelSetup) -> Result<(), StartError> {
    let output = real(&config.output_dir);
    for (key, path) in inputs(config, setup) {
        if takes_away(&output, key, &real(&path)) {
            let output_dir = config.output_dir.clone();
            return Err(StartError::WritesWhereItReads { output_dir, key, path });
        }
    }
    Ok(())
}

/// Whether a run in `output` writes into the folder `input` that `key` names, or deletes it.
fn takes_away(output: &Path, key: &str, input: &Path) -> bool {
    let written = if key == BRIDGES { output == input } else { output.starts_with(input) };
    let rotated = input.strip_prefix(output).is_ok_and(|below| {
        let first = below.components().next().map(|name| name.as_os_str().to_string_lossy().into_owned());
        first.is_some_and(|name| name.starts_with("checkpoint-"))
    });
    written || rotated
}

/// The folders that hold what the run starts from, by the keys that name them.
fn inputs(config: &TrainConfig, setup: &ModelSetup) -> Vec<(&'static str, PathBuf)> {
    let model = &config.model;
    let mut inputs = vec![("model.path", model.path.clone())];
    inputs.extend(setup.base.clone().map(|base| ("the base of model.path", base)));
    inputs.extend(model.bridges.iter().flat_map(bridge_folders).map(|folder| (BRIDGES, folder)));
    for (key, tower) in [("model.vision_tower", &model.vision_tower), ("model.text_tower", &model.text_tower)]
    {
        // Names of presets are no folders.
        inputs.extend(tower.iter().map(PathBuf::from).filter(|path| path.is_dir()).map(|path| (key, path)));
    }
    inputs
}

fn bridge_folders(bridges: &Bridges) -> Vec<PathBuf> {
    match bridges {
        Bridges::Folder(folder) => vec![folder.clone()],
        Bridges::Files(files) => {
            let files = [&files.projector, &files.feature_guide, &files.detail_perceiver];
            let folders = files.into_iter().flatten().filter_map(|file| file.parent());
            // The parent of a bare name is empty, which is the prefix of every path.
            folders.map(|folder| Path::new(".").join(folder)).collect()
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BridgeFiles;

    #[test]
    fn a_run_may_write_below_the_folder_of_stage_1_files() {
        let files = |projector: &str| {
            Bridges::Files(BridgeFiles { projector: Some(projector.into()), ..BridgeFiles::default() })
        };
        let refused = |bridges: Bridges, output: &str| {
            let folders = bridge_folders(&bridges);
            folders.iter().any(|folder| takes_away(&real(Path::new(output)), BRIDGES, &real(folder)))
        };
        for (bridges, own) in [
            (files("mm_projector.bin"), "."),
            (files("./mm_projector.bin"), "."),
            (files("runs/pretrain/mm_projector.bin"), "runs/pretrain"),
            (Bridges::Folder("runs/pretrain".into()), "runs/pretrain"),
        ] {
            assert!(refused(bridges.clone(), own), "{bridges:?}");
            assert!(!refused(bridges.clone(), "runs/pretrain/stage2"), "{bridges:?}");
            assert!(!refused(bridges, "/elsewhere/run"));
        }
        assert!(refused(files("runs/checkpoint-3/mm_projector.bin"), "runs"));
        // A model is another matter.
        assert!(takes_away(Path::new("/model/out"), "model.path", Path::new("/model")));
    }
}
