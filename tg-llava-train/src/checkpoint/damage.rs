use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use super::CheckpointError;

/// A folder that is no usable checkpoint.
#[derive(Debug)]
pub struct Damaged {
    /// The folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub damage: Damage,
}

impl Display for Damaged {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not a usable checkpoint: {}", self.path.display(), self.damage)
    }
}

impl std::error::Error for Damaged {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.damage)
    }
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// There is no manifest.
    #[error("manifest.json is missing; the folder was not written by this program, or is incomplete")]
    NoManifest,
    /// The manifest cannot be read, does not parse or is of another version.
    #[error(transparent)]
    Manifest(Box<CheckpointError>),
    /// The manifest does not agree with its own hash.
    #[error("manifest.json was changed after it was written")]
    Seal,
    /// The manifest names something outside of the folder.
    #[error("manifest.json names `{file}`, which is no path inside the folder")]
    Outside {
        /// The name.
        file: String,
    },
    /// The folder was renamed to another step.
    #[error("the folder's name says step {named}, manifest.json says step {found}")]
    Step {
        /// Step in the folder's name.
        named: usize,
        /// Step in the manifest.
        found: usize,
    },
    /// A file is not there.
    #[error("{file} is missing")]
    Missing {
        /// The file, relative to the folder.
        file: String,
    },
    /// A file was cut or has grown.
    #[error("{file} has {found} bytes instead of {expected}")]
    Length {
        /// The file, relative to the folder.
        file: String,
        /// Bytes when it was saved.
        expected: u64,
        /// Bytes now.
        found: u64,
    },
    /// A file has other contents.
    #[error("{file} does not hold what was saved (its hash differs)")]
    Hash {
        /// The file, relative to the folder.
        file: String,
    },
    /// A file cannot be read.
    #[error("{file} cannot be read: {source}")]
    Unreadable {
        /// The file, relative to the folder.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}
