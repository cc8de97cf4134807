use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A step of a commit. Whatever came of an earlier try, it can be done again.
#[derive(Debug)]
pub(super) enum Operation {
    /// Writes a mark of this text.
    Mark(PathBuf, String),
    /// Deletes a file.
    Remove(PathBuf),
    /// Makes a folder where there is none.
    Folder(PathBuf),
    /// Moves a file to a place.
    Move(PathBuf, PathBuf),
    /// Flushes the names in a folder to the disk.
    Flush(PathBuf),
    /// Deletes the folder of the new files, which are all in their places.
    Discard(PathBuf),
}

impl Operation {
    /// Does it.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Mark(path, text) => {
                fs::write(path, text).map_err(|e| Error::io(path, e))?;
                sync_file(path)?;
                path.parent().map_or(Ok(()), sync_folder)
            }
            Self::Remove(path) => remove(path),
            Self::Folder(path) => fs::create_dir_all(path).map_err(|e| Error::io(path, e)),
            Self::Move(from, to) => move_file(from, to),
            Self::Flush(path) => sync_folder(path),
            Self::Discard(path) => {
                // Nothing but marks and empty folders; the next save tidies up as well.
                let _ = fs::remove_dir_all(path);
                Ok(())
            }
        }
    }
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

pub(super) fn sync_file(path: &Path) -> Result<()> {
    // Windows flushes only what is open for writing; a file that is read-only can still be read.
    let file = OpenOptions::new().read(true).write(true).open(path).or_else(|_| File::open(path));
    file.and_then(|file| file.sync_all()).map_err(|e| Error::io(path, e))
}

/// Flushes the names in a folder to the disk.
pub(super) fn sync_folder(dir: &Path) -> Result<()> {
    // Windows neither opens folders nor needs it: its renames are journalled.
    if cfg!(unix) {
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(dir, e))?;
    }
    Ok(())
}

/// Deletes a file; it is fine if it is not there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}
