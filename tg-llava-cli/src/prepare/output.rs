//! A folder of results that appears when it is complete.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::PrepareError;

/// What to do where the output folder holds something already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// Refuse; an empty folder is fine.
    #[default]
    Refuse,
    /// Replace the files and folders that such a run writes, remove those that this one does not write, and leave
    /// everything else alone.
    Replace,
}

/// Results on their way: written into a hidden folder beside the target and moved when all of them are there.
/// Whatever a killed run left in the hidden folder goes when the next one begins.
#[derive(Debug)]
pub(super) struct OutputFolder {
    target: PathBuf,
    partial: PathBuf,
    entries: Vec<String>,
}

impl OutputFolder {
    /// Begins a folder which will hold `entries` or some of them, its files and folders at the top.
    pub fn begin(target: &Path, existing: Existing, entries: &[&str]) -> Result<Self, PrepareError> {
        let target = std::path::absolute(target).map_err(|e| PrepareError::write(target, e))?;
        let target = if target.exists() {
            target.canonicalize().map_err(|e| PrepareError::write(&target, e))?
        } else {
            target
        };
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(PrepareError::NoName { path: target });
        };
        let vacant = is_vacant(&target)?;
        if existing == Existing::Refuse && !vacant {
            return Err(PrepareError::NotEmpty { path: target, entries: entries.join(", ") });
        }
        let partial = parent.join(format!(".{}.partial", name.to_string_lossy()));
        remove(&partial)?;
        fs::create_dir_all(&partial).map_err(|e| PrepareError::write(&partial, e))?;
        Ok(Self { target, partial, entries: entries.iter().map(|&entry| entry.into()).collect() })
    }

    /// Creates a folder under the target.
    pub fn create_folder(&self, name: &str) -> Result<(), PrepareError> {
        fs::create_dir_all(self.partial.join(name))
            .map_err(|e| PrepareError::write(self.target.join(name), e))
    }

    /// Writes a file; its folder must have been created.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<(), PrepareError> {
        fs::write(self.partial.join(name), bytes).map_err(|e| PrepareError::write(self.target.join(name), e))
    }

    /// Moves everything to its place. What an earlier run left of the entries goes, so that nothing is mixed.
    pub fn finish(self) -> Result<(), PrepareError> {
        if !self.target.exists() {
            return rename(&self.partial, &self.target);
        }
        let replaced = self.partial.with_extension("replaced");
        remove(&replaced)?;
        fs::create_dir(&replaced).map_err(|e| PrepareError::write(&replaced, e))?;
        for entry in &self.entries {
            let (made, place) = (self.partial.join(entry), self.target.join(entry));
            if place.symlink_metadata().is_ok() {
                rename(&place, &replaced.join(entry))?;
            }
            if made.exists() {
                rename(&made, &place)?;
            }
        }
        remove(&replaced)
    }
}

impl Drop for OutputFolder {
    /// A run that failed leaves nothing behind; what cannot be removed, the next run replaces.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.partial);
    }
}

/// Whether nothing stands there, or an empty folder.
fn is_vacant(path: &Path) -> Result<bool, PrepareError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(PrepareError::write(path, e)),
    }
}

fn remove(folder: &Path) -> Result<(), PrepareError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(PrepareError::write(folder, e)),
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), PrepareError> {
    fs::rename(from, to).map_err(|e| PrepareError::write(to, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path, existing: Existing, text: &str) -> Result<(), PrepareError> {
        let out = OutputFolder::begin(target, existing, &["a", "deep"])?;
        out.create_folder("deep")?;
        out.write("a", text)?;
        out.write("deep/b", text)?;
        out.finish()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_folder_appears_whole_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new/out");
        let out = OutputFolder::begin(&target, Existing::Refuse, &["a"]).unwrap();
        out.write("a", "1").unwrap();
        assert!(!target.exists());
        out.finish().unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "1");
        assert_eq!(names(target.parent().unwrap()), ["out"]);
    }

    #[test]
    fn an_empty_folder_is_fine_and_a_full_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        fs::create_dir(&target).unwrap();
        write(&target, Existing::Refuse, "1").unwrap();
        let error = write(&target, Existing::Refuse, "2").unwrap_err();
        assert!(matches!(error, PrepareError::NotEmpty { .. }) && error.to_string().contains("a, deep"));
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "1");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn replacing_leaves_other_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.v1");
        write(&target, Existing::Refuse, "1").unwrap();
        fs::write(target.join("mine"), "mine").unwrap();
        fs::write(target.join("deep/stale"), "stale").unwrap();
        write(&target, Existing::Replace, "2").unwrap();
        assert_eq!(names(&target), ["a", "deep", "mine"]);
        assert_eq!(names(&target.join("deep")), ["b"]);
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "2");
        assert_eq!(names(dir.path()), ["out.v1"]);
    }

    #[test]
    fn what_an_earlier_run_alone_wrote_goes() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        write(&target, Existing::Refuse, "1").unwrap();
        let out = OutputFolder::begin(&target, Existing::Replace, &["a", "deep"]).unwrap();
        out.write("a", "2").unwrap();
        out.finish().unwrap();
        assert_eq!(names(&target), ["a"]);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_run_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let out = OutputFolder::begin(&dir.path().join("out"), Existing::Refuse, &[]).unwrap();
        assert!(matches!(out.write("no/folder", "").unwrap_err(), PrepareError::Write { .. }));
        drop(out);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_file_and_the_root_are_no_folders() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let begin = |path: &Path| OutputFolder::begin(path, Existing::Refuse, &[]).unwrap_err();
        assert!(matches!(begin(&file), PrepareError::Write { path, .. } if path.ends_with("file")));
        assert!(matches!(begin(Path::new("/")), PrepareError::NoName { .. }));
    }
}
