//! A save takes the place of what a folder held, as a whole.
//!
//! Weights come in many forms (one file or shards, safetensors or PyTorch, the whole model or stage-1 files), and a
//! reader takes the first that it finds. So a save must not leave a form of an earlier one. Nor may a process that is
//! killed at any moment leave old files beside new ones that read as one model. Hence this order:
//!
//! 1. all new files are written into a folder inside the target ([`Staging::path`]) and flushed to the disk: what was
//!    there is still whole
//! 2. `config.json` is deleted: from here on the target is no checkpoint, and no model is read from it
//! 3. every form of weights is deleted, and the small files that a save carries over
//! 4. the new files are moved to their places, `config.json` last: the target is a checkpoint again
//!
//! Steps 2 to 4 delete and rename; a file is copied only where its place is on another file system. A kill or an error
//! in step 1 leaves the old model. One in steps 2 to 4 leaves a target without config.json, with the new files that
//! are not in their places yet still in the folder: together they are the whole new model. Stage-1 files are read
//! without config.json, so their reader asks [`is_half_moved`]. The next save or [`clean`] deletes the folder.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::component::Component;
use super::source::{INDEXES, SINGLE};
use crate::error::{Error, Result};

/// Name of the folder inside the target.
const STAGING: &str = ".partial-save";

/// The file that makes a folder a checkpoint.
const ENTRY: &str = "config.json";

/// New files of a folder that are not in their places yet; they are gone when this is dropped before the commit.
pub(super) struct Staging {
    target: PathBuf,
    folder: PathBuf,
    /// Whether files of the target may be gone already.
    committing: bool,
}

impl Staging {
    /// Prepares a save into `target`, which is created where it is missing.
    pub fn begin(target: &Path) -> Result<Self> {
        fs::create_dir_all(target).map_err(|e| Error::io(target, e))?;
        clean(target)?;
        let folder = target.join(STAGING);
        fs::create_dir(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Self { target: target.to_path_buf(), folder, committing: false })
    }

    /// The folder to write into.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Puts all files in their places, and takes away every other form of weights and the files called `stale`.
    ///
    /// # Errors
    /// Where a file cannot be deleted or moved; new files that are not in their places then stay in the folder.
    pub fn commit(mut self, stale: &[&str]) -> Result<()> {
        sync_files(&self.folder)?;
        // From here on an error must not take the new files, which may be the only ones.
        self.committing = true;
        let entry = self.target.join(ENTRY);
        remove(&entry)?;
        sync_folder(&self.target)?;
        for (name, path) in entries(&self.target)? {
            if is_weights(&name) || stale.contains(&name.as_str()) {
                remove(&path)?;
            }
        }
        put_in_place(&self.folder, &self.target)?;
        move_file(&self.folder.join(ENTRY), &entry)?;
        sync_folder(&self.target)?;
        // Nothing but empty folders; the next save tidies up as well.
        let _ = fs::remove_dir_all(&self.folder);
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.committing {
            // Another error is the one to tell, and the next save tidies up as well.
            let _ = fs::remove_dir_all(&self.folder);
        }
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

/// Whether a save into `dir` may have stopped between the deletion of the old files and the last move.
pub(super) fn is_half_moved(dir: &Path) -> bool {
    has_unfinished_save(dir) && !dir.join(ENTRY).is_file()
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

/// Moves all files but the entry file of the outermost folder, and flushes their names to the disk.
fn put_in_place(from: &Path, to: &Path) -> Result<()> {
    for (name, path) in entries(from)? {
        let place = to.join(&name);
        if path.is_dir() {
            fs::create_dir_all(&place).map_err(|e| Error::io(&place, e))?;
            put_in_place(&path, &place)?;
            let inner = path.join(ENTRY);
            if inner.is_file() {
                move_file(&inner, &place.join(ENTRY))?;
                sync_folder(&place)?;
            }
        } else if name != ENTRY {
            move_file(&path, &place)?;
        }
    }
    sync_folder(to)
}

/// Moves a file, also to another file system: a folder inside the target may be a link or a mount.
fn move_file(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            // A rename replaces a link; a copy would write through it.
            remove(to)?;
            fs::copy(from, to).map_err(|e| Error::io(to, e))?;
            sync_file(to)?;
            remove(from)
        }
        moved => moved.map_err(|e| Error::io(to, e)),
    }
}

/// Flushes all files in a folder to the disk.
fn sync_files(dir: &Path) -> Result<()> {
    for (_, path) in entries(dir)? {
        if path.is_dir() { sync_files(&path)? } else { sync_file(&path)? }
    }
    sync_folder(dir)
}

fn sync_file(path: &Path) -> Result<()> {
    // Windows flushes only what is open for writing; a file that is read-only can still be read.
    let file = OpenOptions::new().read(true).write(true).open(path).or_else(|_| File::open(path));
    file.and_then(|file| file.sync_all()).map_err(|e| Error::io(path, e))
}

/// Flushes the names in a folder to the disk.
fn sync_folder(dir: &Path) -> Result<()> {
    // Windows neither opens folders nor needs it: its renames are journalled.
    if cfg!(unix) {
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(dir, e))?;
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
    fn a_commit_that_fails_keeps_the_new_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "model.safetensors", "tower"] {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        let staging = Staging::begin(dir.path()).unwrap();
        fs::create_dir(staging.path().join("tower")).unwrap();
        let new = ["config.json", "model.safetensors", "tower/config.json"];
        for name in new {
            fs::write(staging.path().join(name), "new").unwrap();
        }
        // A file is where the tower's folder must be.
        let error = staging.commit(&[]).unwrap_err().to_string();
        assert!(error.contains("tower"), "{error}");
        assert!(is_half_moved(dir.path()) && !dir.path().join("config.json").exists());
        for name in new {
            let places = [dir.path().join(STAGING).join(name), dir.path().join(name)];
            assert!(places.iter().any(|place| fs::read(place).is_ok_and(|text| text == b"new")), "{name}");
        }
    }

    /// A folder of the target that lies in the memory file system, where a rename does not reach.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_on_another_file_system_is_filled() {
        use std::os::unix::fs::symlink;
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        symlink(other.path(), dir.path().join("tower")).unwrap();
        fs::write(dir.path().join("notes.txt"), "old").unwrap();
        symlink(dir.path().join("notes.txt"), other.path().join("vocab.json")).unwrap();
        let staging = Staging::begin(dir.path()).unwrap();
        fs::create_dir(staging.path().join("tower")).unwrap();
        for name in ["config.json", "tower/config.json", "tower/vocab.json"] {
            fs::write(staging.path().join(name), "new").unwrap();
        }
        staging.commit(&[]).unwrap();
        assert_eq!(names(dir.path()), ["config.json", "notes.txt", "tower"]);
        assert_eq!(names(other.path()), ["config.json", "vocab.json"]);
        assert_eq!(fs::read_to_string(other.path().join("vocab.json")).unwrap(), "new");
        assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "old");
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
