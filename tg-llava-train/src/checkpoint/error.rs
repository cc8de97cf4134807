use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::{Damaged, OtherRun};

/// Any error that can cross threads.
pub(super) type BoxedError = Box<dyn Error + Send + Sync>;

/// Why a checkpoint could not be written or used, always naming the file or folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk, or the user's quota on it, is full.
    #[error("{path}: no space is left ({source}); {}", free_space(*needed))]
    DiskFull {
        /// The file or folder that was being written.
        path: PathBuf,
        /// Bytes that a whole checkpoint takes, judged by the one before or by the file itself.
        needed: Option<u64>,
        /// What said so.
        source: BoxedError,
    },
    /// What the caller puts into the checkpoint could not be written, for another reason than a full disk.
    #[error("{path}: the checkpoint was not saved, those before it are untouched: {source}")]
    Contents {
        /// The temporary folder, removed again where that was possible.
        path: PathBuf,
        /// The caller's error.
        source: BoxedError,
    },
    /// A JSON file does not parse, or lacks a key.
    #[error("{path}: not valid JSON for this use: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// A file of another format version.
    #[error(
        "{path}: format version {found}, but this program reads {supported}; use the program that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it says it has.
        found: u64,
        /// The version that can be read.
        supported: u64,
    },
    /// Something in the folder of a checkpoint that a manifest cannot list.
    #[error("{path}: a checkpoint holds only plain files and folders with names in UTF-8")]
    NotPlain {
        /// The entry.
        path: PathBuf,
    },
    /// A checkpoint that was asked for by name is damaged.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// A checkpoint that cannot continue this run.
    #[error("{path}: {source}")]
    OtherRun {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What differs.
        source: OtherRun,
    },
    /// A step is to be marked as the best, but it was not saved.
    #[error("{path}: no such checkpoint; save step {step} before it is marked as the best")]
    NotSaved {
        /// Where it would be.
        path: PathBuf,
        /// The step.
        step: usize,
    },
    /// A score that cannot be compared.
    #[error("{path}: {metric} of step {step} is {value}; the best checkpoint needs a finite number")]
    NotFinite {
        /// The file that would hold it.
        path: PathBuf,
        /// Name of the metric.
        metric: String,
        /// The step.
        step: usize,
        /// The score.
        value: f64,
    },
    /// A file of tensors that cannot be written or read.
    #[error(transparent)]
    Tensors(tg_llava_core::Error),
}

impl From<tg_llava_core::Error> for CheckpointError {
    fn from(error: tg_llava_core::Error) -> Self {
        match error {
            tg_llava_core::Error::Io { path, source } => Self::io(path, source),
            other => Self::Tensors(other),
        }
    }
}

impl CheckpointError {
    /// The error of an operation on `path`.
    pub(super) fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        match disk_is_full(&source) {
            true => Self::DiskFull { path, needed: None, source: source.into() },
            false => Self::Io { path, source },
        }
    }

    /// The error of a caller who was writing into `folder`.
    pub(super) fn contents(folder: &Path, source: BoxedError) -> Self {
        let path = folder.to_path_buf();
        match source.downcast::<Self>() {
            Ok(own) => *own,
            Err(source) if disk_is_full(source.as_ref()) => Self::DiskFull { path, needed: None, source },
            Err(source) => Self::Contents { path, source },
        }
    }

    /// Adds what a whole checkpoint needs to the error of a full disk; the larger figure counts.
    pub(super) fn with_needed(mut self, bytes: Option<u64>) -> Self {
        if let Self::DiskFull { needed, .. } = &mut self {
            *needed = (*needed).max(bytes);
        }
        self
    }
}

/// Whether `error` comes from a full disk, however deep that is wrapped.
fn disk_is_full(error: &(dyn Error + 'static)) -> bool {
    let itself = error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            // An io::Error made from another error passes over that one as its source.
            || error.get_ref().is_some_and(|inner| disk_is_full(inner))
    });
    itself || error.source().is_some_and(disk_is_full)
}

fn free_space(needed: Option<u64>) -> String {
    let amount = needed.map_or(String::new(), |bytes| format!("a checkpoint takes {}; ", human_bytes(bytes)));
    format!("{amount}make room or lower run.save_total_limit, and resume; those saved before are untouched")
}

fn human_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.into_iter().find(|(size, _)| bytes >= *size) {
        // Rounded up: less would not do.
        Some((size, unit)) => {
            let tenths = bytes.div_ceil(size / 10);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the stage failed")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn a_full_disk_is_seen_through_wrappers() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let quota = io::Error::from(io::ErrorKind::QuotaExceeded);
        let nested = io::Error::other(Wrapped(full()));
        for source in [Box::new(Wrapped(full())) as BoxedError, quota.into(), nested.into()] {
            let error = CheckpointError::contents(Path::new("run/tmp"), source).with_needed(Some(1_234_567));
            let text = error.to_string();
            assert!(matches!(error, CheckpointError::DiskFull { needed: Some(1_234_567), .. }), "{text}");
            assert!(
                text.starts_with("run/tmp: ") && text.contains("a checkpoint takes 1.3 MB; make room"),
                "{text}"
            );
        }
        let other = Wrapped(io::ErrorKind::PermissionDenied.into());
        let error = CheckpointError::contents(Path::new("run/tmp"), other.into());
        assert!(matches!(error, CheckpointError::Contents { .. }));
    }

    #[test]
    fn our_own_error_keeps_its_path() {
        let inner =
            CheckpointError::io("run/tmp/a.bin", io::ErrorKind::StorageFull.into()).with_needed(Some(7));
        let error = CheckpointError::contents(Path::new("run/tmp"), inner.into()).with_needed(Some(3));
        assert!(error.to_string().starts_with("run/tmp/a.bin: "), "{error}");
        assert!(error.to_string().contains("takes 7 bytes"), "{error}");
    }

    #[test]
    fn sizes_are_rounded_up() {
        let texts = [999, 1_000, 1_001, 2_300_000_001].map(human_bytes);
        assert_eq!(texts, ["999 bytes", "1.0 kB", "1.1 kB", "2.4 GB"]);
    }
}
