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
//! without config.json, so their reader asks [`is_half_moved`].
//!
//! Marks in the folder say that step 2, and that step 4 was reached. With them the next save or [`clean`] goes on from
//! there; without, it deletes the folder, unless it is the same save, whose [`Journal`] says how far step 1 came
//! ([`Staging::resume`]).

mod journal;
mod operation;
#[cfg(test)]
mod tests;

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use self::journal::JOURNAL;
pub(super) use self::journal::{Journal, State};
use self::operation::{Operation, remove, sync_file, sync_folder};
use super::WeightsError;
use super::adapter::ADAPTER_FILES;
use super::component::Component;
use super::origin::Origin;
use super::source::{INDEXES, SINGLE};
use crate::config::ADAPTER_CONFIG;
use crate::error::{Error, Result};

/// Name of the folder inside the target.
const STAGING: &str = ".partial-save";

/// The file that makes a folder a checkpoint.
const ENTRY: &str = "config.json";

/// Mark in the folder: the new files are complete, old ones may be gone. Holds the names of small files that go, one a line.
const COMPLETE: &str = ".complete";

/// Mark in the folder: the old files are gone, new ones may be in their places.
const MOVING: &str = ".moving";

/// File in the folder that is locked by whoever writes there and keeps a journal: two would spoil each other's files.
const LOCK: &str = ".lock";

/// New files of a folder that are not in their places yet; they are gone when this is dropped before the commit, unless a journal
/// speaks of them.
pub(super) struct Staging {
    target: PathBuf,
    folder: PathBuf,
    /// Whether files of the target may be gone already.
    committing: bool,
    _lock: Option<File>,
}

/// What becomes of what an earlier start of a save has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Earlier {
    /// It is gone on with.
    Kept {
        /// So many bytes of files are there.
        bytes: u64,
    },
    /// It goes.
    Discarded {
        /// Why, in words that follow a colon.
        reason: String,
    },
}

impl Staging {
    /// Prepares a save into `target`, which is created where it is missing.
    pub fn begin(target: &Path) -> Result<Self> {
        fs::create_dir_all(target).map_err(|e| Error::io(target, e))?;
        clean(target)?;
        let folder = target.join(STAGING);
        fs::create_dir(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Self { target: target.to_path_buf(), folder, committing: false, _lock: None })
    }

    /// Prepares a save of what is made of `origin`, behind what an earlier start of the same has left.
    ///
    /// # Errors
    /// Where another process is at it, or the folder cannot be written.
    pub fn resume(target: &Path, origin: Origin) -> Result<(Self, Journal, Option<Earlier>)> {
        let folder = target.join(STAGING);
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let lock = lock(&folder, target)?;
        let found = State::read(&folder);
        let difference = match &found {
            Some(state) => origin.difference(&state.origin),
            None => folder.join(JOURNAL).is_file().then(|| "its journal cannot be read".into()),
        };
        let (state, earlier) = match (found, difference) {
            (Some(state), None) if state.bytes() > 0 => {
                let bytes = state.bytes();
                (state, Some(Earlier::Kept { bytes }))
            }
            (_, difference) => (State::new(origin), difference.map(|reason| Earlier::Discarded { reason })),
        };
        // Small files are written anew, and might not be now.
        for (name, path) in entries(&folder)? {
            match path.is_dir() {
                true => fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e))?,
                false if name == LOCK || state.files.contains_key(&name) => {}
                false => remove(&path)?,
            }
        }
        let journal = Journal::open(&folder, state)?;
        Ok((
            Self { target: target.to_path_buf(), folder, committing: false, _lock: Some(lock) },
            journal,
            earlier,
        ))
    }

    /// The folder that the files are for.
    pub fn target(&self) -> &Path {
        &self.target
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
        Operation::Mark(self.folder.join(COMPLETE), stale.join("\n")).run()?;
        // From here on an error must not take the new files, which may be the only ones.
        self.committing = true;
        finish(&self.target)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let resumable = || State::read(&self.folder).is_some_and(|state| state.bytes() > 0);
        if !self.committing && !resumable() {
            // Another error is the one to tell, and the next save tidies up as well.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Locks a folder of new files for this process.
fn lock(folder: &Path, target: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| Error::io(&path, e))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let reason = "another process is writing into it".into();
            Err(WeightsError::Write { path: target.to_path_buf(), reason }.into())
        }
        // Some network file systems have no locks; a save there is no worse off than without one.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Finishes a save into `target` that was killed while it put its files in their places. What its journal said, where there was such a
/// save and it kept one.
///
/// # Errors
/// Where something cannot be deleted or moved.
pub(super) fn finish_moving(target: &Path) -> Result<Option<State>> {
    let folder = target.join(STAGING);
    if !folder.join(COMPLETE).is_file() {
        return Ok(None);
    }
    let state = State::read(&folder);
    finish(target)?;
    Ok(state)
}

/// Does what is left of a commit into `target`.
fn finish(target: &Path) -> Result<()> {
    operations(target)?.iter().try_for_each(Operation::run)
}

/// What is left of a commit into `target` that has the mark [`COMPLETE`].
fn operations(target: &Path) -> Result<Vec<Operation>> {
    let (folder, entry) = (target.join(STAGING), target.join(ENTRY));
    let mut all = Vec::new();
    // The entry file is the last one to be moved.
    if folder.join(ENTRY).is_file() {
        if !folder.join(MOVING).is_file() {
            let mark = folder.join(COMPLETE);
            let stale = fs::read_to_string(&mark).map_err(|e| Error::io(&mark, e))?;
            all.extend([Operation::Remove(entry.clone()), Operation::Flush(target.to_path_buf())]);
            let old = entries(target)?.into_iter();
            let old = old.filter(|(name, _)| is_weights(name) || stale.lines().any(|stale| stale == name));
            all.extend(old.map(|(_, path)| Operation::Remove(path)));
            all.push(Operation::Flush(target.to_path_buf()));
            all.push(Operation::Mark(folder.join(MOVING), String::new()));
        }
        put_in_place(&folder, target, &mut all)?;
        all.extend([Operation::Move(folder.join(ENTRY), entry), Operation::Flush(target.to_path_buf())]);
    }
    all.push(Operation::Discard(folder));
    Ok(all)
}

/// Finishes a save into `dir` that was killed while it put its files in their places; deletes what other killed saves left, and says what that was. No save into
/// `dir` may be under way.
///
/// # Errors
/// Where something cannot be deleted or moved.
pub fn clean(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for (name, path) in entries(dir)? {
        let done = match name.as_str() {
            STAGING if path.join(COMPLETE).is_file() => {
                finish(dir)?;
                continue;
            }
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
    SINGLE.contains(&name)
        || INDEXES.contains(&name)
        || ADAPTER_FILES.contains(&name)
        || name == ADAPTER_CONFIG
        || is_shard(name)
        || is_bridge(name)
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

/// Moves all files but marks and the entry file of the outermost folder, and flushes their names to the disk.
fn put_in_place(from: &Path, to: &Path, all: &mut Vec<Operation>) -> Result<()> {
    for (name, path) in entries(from)? {
        let place = to.join(&name);
        if path.is_dir() {
            all.push(Operation::Folder(place.clone()));
            put_in_place(&path, &place, all)?;
            let inner = path.join(ENTRY);
            if inner.is_file() {
                all.extend([Operation::Move(inner, place.join(ENTRY)), Operation::Flush(place)]);
            }
        } else if ![ENTRY, COMPLETE, MOVING, JOURNAL, LOCK].contains(&name.as_str()) {
            all.push(Operation::Move(path, place));
        }
    }
    all.push(Operation::Flush(to.to_path_buf()));
    Ok(())
}

/// Flushes all files in a folder to the disk.
fn sync_files(dir: &Path) -> Result<()> {
    for (_, path) in entries(dir)? {
        if path.is_dir() { sync_files(&path)? } else { sync_file(&path)? }
    }
    sync_folder(dir)
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
