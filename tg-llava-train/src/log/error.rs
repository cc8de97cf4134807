//! What can go wrong with the log of a run, always naming the file.

use std::path::{Path, PathBuf};

/// A log file that cannot be written, read or drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A line of a metrics file is no record.
    #[error("{path}, line {line}: {message}; remove the line or move the file away")]
    Line {
        /// The metrics file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// A plot was asked for where there is nothing to draw.
    #[error("{path}: nothing to plot: no point has a finite value")]
    NothingToPlot {
        /// The picture that was to be written.
        path: PathBuf,
    },
    /// A plot could not be drawn.
    #[error("{path}: cannot draw the plot: {message}")]
    Draw {
        /// The picture that was to be written.
        path: PathBuf,
        /// What the drawing library said.
        message: String,
    },
    /// A plot was drawn and could not be stored as PNG.
    #[error("{path}: {source}")]
    Png {
        /// The picture that was to be written.
        path: PathBuf,
        /// What the encoder said.
        source: image::ImageError,
    },
}

impl LogError {
    /// For `map_err` of what the operating system refuses at `path`.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }
}
