use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::TensorSource;
use super::source::INDEXES;
use crate::config::ADAPTER_CONFIG;
use crate::error::{Error, Result};

/// What a result is made of: where two are equal, so are the results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// Of this library: another one may compute other bytes.
    version: String,
    options: String,
    files: Vec<ReadFile>,
}

/// A file that is read, as far as its contents can be told without reading them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ReadFile {
    path: String,
    bytes: u64,
    /// Nanoseconds since 1970; none where the file system knows no times.
    modified: Option<u64>,
}

impl Origin {
    /// The tensors of `source`, what the folders `described` say of them, and `options` in words.
    ///
    /// # Errors
    /// Where a file is not there any more.
    pub fn of<'a>(
        source: &TensorSource,
        described: impl IntoIterator<Item = &'a Path>,
        options: String,
    ) -> Result<Self> {
        let mut paths = source.files();
        for folder in described {
            let names = ["config.json", ADAPTER_CONFIG].into_iter().chain(INDEXES);
            paths.extend(names.map(|name| folder.join(name)).filter(|path| path.is_file()));
        }
        let paths: BTreeSet<PathBuf> =
            paths.into_iter().map(|path| path.canonicalize().unwrap_or(path)).collect();
        let files = paths.iter().map(|path| ReadFile::of(path)).collect::<Result<_>>()?;
        Ok(Self { version: env!("CARGO_PKG_VERSION").into(), options, files })
    }

    /// What of `earlier` is different here, in words; nothing where all is the same.
    pub fn difference(&self, earlier: &Self) -> Option<String> {
        if self.version != earlier.version {
            return Some(format!("it was made by version {}", earlier.version));
        }
        if self.options != earlier.options {
            return Some("its options were others".into());
        }
        let other = |a: &Self, b: &Self| a.files.iter().find(|file| !b.files.contains(file)).cloned();
        let file = other(self, earlier).or_else(|| other(earlier, self))?;
        Some(format!("{} was another file, or is not read any more", file.path))
    }
}

impl ReadFile {
    fn of(path: &Path) -> Result<Self> {
        let about = path.metadata().map_err(|e| Error::io(path, e))?;
        let since = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = since.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Ok(Self { path: path.display().to_string(), bytes: about.len(), modified })
    }
}
