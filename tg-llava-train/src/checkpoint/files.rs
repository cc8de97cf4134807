//! What the standard library lacks for files that survive a crash, and JSON with a version.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CheckpointError, Result};

/// Flushes the names in a folder to the disk.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    // Windows neither opens folders nor needs it: its renames are journalled.
    if cfg!(unix) {
        File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| CheckpointError::io(path, e))?;
    }
    Ok(())
}

/// Opens a file so that it can be read and flushed.
pub(super) fn open_to_sync(path: &Path) -> Result<File> {
    // Windows flushes only what is open for writing; a file that is read-only can still be read.
    let opened = OpenOptions::new().read(true).write(true).open(path).or_else(|_| File::open(path));
    opened.map_err(|e| CheckpointError::io(path, e))
}

/// Writes a file and flushes it.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| CheckpointError::io(path, e))
}

/// Replaces `path` by way of `temporary`, so that it holds either the old text or the new.
pub(super) fn replace_file(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<()> {
    let replaced = write_synced(temporary, bytes)
        .and_then(|()| fs::rename(temporary, path).map_err(|e| CheckpointError::io(path, e)));
    if replaced.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(temporary);
    }
    replaced?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Removes a folder with all it holds; it is fine if it is not there.
pub(super) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CheckpointError::io(path, error)),
        _ => Ok(()),
    }
}

/// Names and paths in a folder, those that are not UTF-8 left out; none where there is no folder.
pub(super) fn names_in(path: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CheckpointError::io(path, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| CheckpointError::io(path, e))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.path()));
        }
    }
    names.sort();
    Ok(names)
}

/// `value` as JSON for people, with a version in front.
pub(super) fn versioned_json<T: Serialize>(path: &Path, version: u64, value: &T) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        version: u64,
        #[serde(flatten)]
        value: &'a T,
    }
    let text = serde_json::to_string_pretty(&Versioned { version, value });
    text.map(|text| (text + "\n").into_bytes())
        .map_err(|source| CheckpointError::Json { path: path.to_path_buf(), source })
}

/// Reads what [`versioned_json`] gave, of that version alone.
pub(super) fn read_versioned<T: DeserializeOwned>(path: &Path, version: u64) -> Result<T> {
    #[derive(Deserialize)]
    struct Probe {
        version: u64,
    }
    let bytes = fs::read(path).map_err(|e| CheckpointError::io(path, e))?;
    let json = |source| CheckpointError::Json { path: path.to_path_buf(), source };
    let found = serde_json::from_slice::<Probe>(&bytes).map_err(json)?.version;
    if found != version {
        return Err(CheckpointError::Version { path: path.to_path_buf(), found, supported: version });
    }
    serde_json::from_slice(&bytes).map_err(json)
}
