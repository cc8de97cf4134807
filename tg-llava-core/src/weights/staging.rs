//! A save takes the place of what a folder held, as a whole.
//!
//! Weights come in many forms (one file or shards, safetensors or PyTorch, the whole model or stage-1 files), and a
//! reader takes the first that it finds. So a save must not leave a form of an earlier one. Nor may a process that is
//! killed at any moment leave old files beside new ones that read as one model. Hence this order:
//!
//! 1. all new files are written into a folder inside the target ([`Staging::path`]): what was there is still whole
//! 2. `config.json` is deleted: from here on the target is no checkpoint, and nothing reads it
//! 3. every form of weights is deleted, and the small files that a save carries over
//! 4. the new files are moved to their places, `config.json` last: the target is a checkpoint again
//!
//! Steps 2 to 4 are renames and deletions alone. A kill in step 1 leaves the old model with a leftover folder, one in
//! steps 2 to 4 a folder without config.json; the next save or [`clean`] tidies up.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::component::Component;
use super::source::{INDEXES, SINGLE};
use crate::error::{Error, Result};

/// Name of the folder inside the target.
const STAGING: &str = ".partial-save";

/// The file that makes a folder a checkpoint.
const ENTRY: &str = "config.json";

/// New files of a folder that are not in their places yet; they are gone when this is dropped without a commit.
pub(super) struct Staging {
    target: PathBuf,
    folder: PathBuf,
}

impl Staging {
    /// Prepares a save into `target`, which is created where it is missing.
    pub fn begin(target: &Path) -> Result<Self> {
        fs::create_dir_all(target).map_err(|e| Error::io(target, e))?;
        clean(target)?;
        let folder = target.join(STAGING);
        fs::create_dir(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Self { target: target.to_path_buf(), folder })
    }

    /// The folder to write into.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Puts all files in their places, and takes away every other form of weights and the files called `stale`.
    pub fn commit(self, stale: &[&str]) -> Result<()> {
        let entry = self.target.join(ENTRY);
        remove(&entry)?;
        for (name, path) in entries(&self.target)? {
            if is_weights(&name) || stale.contains(&name.as_str()) {
                remove(&path)?;
            }
        }
        put_in_place(&self.folder, &self.target)?;
        let staged = self.folder.join(ENTRY);
        fs::rename(&staged, &entry).map_err(|e| Error::io(&entry, e))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Another error is the one to tell, and the next save tidies up as well.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Deletes what killed saves left in `dir`, and says what that was. No save into `dir` may be under way.
///
/// # Errors
/// Where something cannot be deleted.
pub fn clean(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for (name, path) in entries(dir)? {
        let done = match name.as_str() {
            STAGING => fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e)),
            _ if is_leftover(&name) && path.is_file() => remove(&path),
            _ => continue,
        };
        done?;
        removed.push(path);
    }
    Ok(removed)
}

/// Whether a save into `dir` was begun and not finished, or is under way.
pub fn has_unfinished_save(dir: &Path) -> bool {
    dir.join(STAGING).is_dir()
}

/// Files that saves of other versions wrote beside their names: `model.safetensors.partial`, and the temporary files
/// of the safetensors crate.
fn is_leftover(name: &str) -> bool {
    let temporary = name.strip_prefix(".tmp");
    temporary.is_some_and(|rest| rest.len() == 6 && rest.chars().all(|c| c.is_ascii_alphanumeric()))
        || name.strip_suffix(".partial").is_some_and(is_weights)
}

/// Whether a file of this name holds weights of a model, or says where they are.
fn is_weights(name: &str) -> bool {
    SINGLE.contains(&name) || INDEXES.contains(&name) || is_shard(name) || is_bridge(name)
}

/// `model-00001-of-00002.safetensors` and `pytorch_model-00001-of-00002.bin`.
fn is_shard(name: &str) -> bool {
    let numbers = name
        .strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .or_else(|| name.strip_prefix("pytorch_model-").and_then(|rest| rest.strip_suffix(".bin")));
    let number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    numbers.and_then(|rest| rest.split_once("-of-")).is_some_and(|(a, b)| number(a) && number(b))
}

/// `mm_projector.safetensors`, `mm_projector.bin` and their like.
fn is_bridge(name: &str) -> bool {
    let stem = name.strip_suffix(".safetensors").or_else(|| name.strip_suffix(".bin"));
    stem.is_some_and(|stem| Component::BRIDGES.into_iter().any(|bridge| bridge.bridge_stem() == Some(stem)))
}

/// Moves all files but the entry file of the outermost folder.
fn put_in_place(from: &Path, to: &Path) -> Result<()> {
    for (name, path) in entries(from)? {
        let place = to.join(&name);
        if path.is_dir() {
            fs::create_dir_all(&place).map_err(|e| Error::io(&place, e))?;
            put_in_place(&path, &place)?;
            let inner = path.join(ENTRY);
            if inner.is_file() {
                fs::rename(&inner, place.join(ENTRY)).map_err(|e| Error::io(&place, e))?;
            }
        } else if name != ENTRY {
            fs::rename(&path, &place).map_err(|e| Error::io(&place, e))?;
        }
    }
    Ok(())
}

/// Names and paths in a folder, those that are not UTF-8 left out: they are not ours. None where there is no folder.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let listed = match fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(dir, error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        let entry = entry.map_err(|e| Error::io(dir, e))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.path()));
        }
    }
    Ok(names)
}

/// Deletes a file; it is fine if it is not there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = entries(dir).unwrap().into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    #[test]
    fn every_form_of_weights_is_known_by_its_name() {
        for name in [
            "model.safetensors",
            "model.safetensors.index.json",
            "model-00001-of-00003.safetensors",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "pytorch_model-00002-of-00002.bin",
            "mm_cross_attn.safetensors",
            "mm_projector.bin",
        ] {
            assert!(is_weights(name), "{name}");
            assert!(is_leftover(&format!("{name}.partial")), "{name}");
        }
        for name in ["my_model.safetensors", "model-a-of-b.safetensors", "optimizer.safetensors", "mm_x.bin"]
        {
            assert!(!is_weights(name), "{name}");
        }
        assert!(is_leftover(".tmpa1B2c3") && !is_leftover(".tmp") && !is_leftover(".tmpa1B2c3.txt"));
    }

    #[test]
    fn a_commit_replaces_weights_and_leaves_other_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["config.json", "mm_projector.bin", "pytorch_model.bin", "vocab.json", "notes.txt", ".tmpabcdef"]
        {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        let staging = Staging::begin(dir.path()).unwrap();
        fs::create_dir(staging.path().join("tower")).unwrap();
        for name in ["config.json", "model.safetensors", "tower/config.json"] {
            fs::write(staging.path().join(name), "new").unwrap();
        }
        staging.commit(&["vocab.json"]).unwrap();
        assert_eq!(names(dir.path()), ["config.json", "model.safetensors", "notes.txt", "tower"]);
        assert_eq!(names(&dir.path().join("tower")), ["config.json"]);
        assert_eq!(fs::read_to_string(dir.path().join("config.json")).unwrap(), "new");
    }

    #[test]
    fn a_save_that_fails_or_is_killed_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.safetensors"), "old").unwrap();
        let staging = Staging::begin(dir.path()).unwrap();
        fs::write(staging.path().join("model.safetensors"), "new").unwrap();
        // A kill runs no destructor.
        std::mem::forget(staging);
        assert!(has_unfinished_save(dir.path()));
        assert_eq!(fs::read_to_string(dir.path().join("model.safetensors")).unwrap(), "old");
        drop(Staging::begin(dir.path()).unwrap());
        assert_eq!(names(dir.path()), ["model.safetensors"]);
        assert!(clean(dir.path()).unwrap().is_empty() && !has_unfinished_save(dir.path()));
    }
}
