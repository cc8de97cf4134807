//! One run at a time in an output folder.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::Path;

use super::RunError;

/// Name of the file that a run holds locked in its `output_dir`; it holds the number of the process.
const LOCK: &str = ".lock";

/// An output folder that no other run may use while this lives. The system lets go of it when the process ends,
/// however that happens.
#[derive(Debug)]
pub struct OutputLock {
    _file: File,
}

impl OutputLock {
    /// Takes `dir`, which is created where it is missing.
    ///
    /// # Errors
    /// [`RunError::Busy`] where another run has it, and [`RunError::Lock`] where the folder cannot be written.
    pub fn take(dir: &Path) -> Result<Self, RunError> {
        let path = dir.join(LOCK);
        let failed = |source| RunError::Lock { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                // For whoever is refused; the lock holds without it.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            }
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let holder = holder.trim();
                let holder = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
                return Err(RunError::Busy { dir: dir.to_path_buf(), holder });
            }
            // Some network file systems have no locks; a run there is no worse off than without one.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_once_and_free_again_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let held = OutputLock::take(&out).unwrap();
        let error = OutputLock::take(&out).unwrap_err().to_string();
        assert!(error.contains(&out.display().to_string()), "{error}");
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        OutputLock::take(&out).unwrap();
    }
}
