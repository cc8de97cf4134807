//! What ranks say that nobody listens to: a file for each in the run's folder.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::train::Interrupter;
use tg_llava_train::log::{EvalRecord, StepRecord, progress_line};
use tg_llava_train::run::Observer;

use super::watch::evaluated_line;

/// Folder in `output_dir` for what ranks write besides the model: what they say, and how far they are.
const RANKS: &str = "ranks";

/// Where rank `rank` writes its lines.
pub(super) fn log_path(folder: &Path, rank: usize) -> PathBuf {
    folder.join(format!("rank-{rank:05}.log"))
}

/// Makes the folder for the ranks of a run into `output_dir`.
///
/// # Errors
/// Where it cannot be made.
pub(super) fn rank_folder(output_dir: &Path) -> anyhow::Result<PathBuf> {
    let folder = output_dir.join(RANKS);
    std::fs::create_dir_all(&folder).with_context(|| {
        format!("{}: cannot be made; output_dir must be a folder that can be written", folder.display())
    })?;
    Ok(folder)
}

/// Opens a rank's file to write behind what earlier runs wrote.
///
/// # Errors
/// Where it cannot be written.
pub(super) fn open_log(path: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| format!("{}: cannot be written", path.display()))
}

/// Sends all that this process writes to stdout and stderr into its rank's file.
///
/// # Errors
/// Where that cannot be written.
#[cfg(unix)]
pub(super) fn take_over(path: &Path) -> anyhow::Result<()> {
    let file = open_log(path)?;
    rustix::stdio::dup2_stdout(&file)?;
    Ok(rustix::stdio::dup2_stderr(&file)?)
}

/// Where a process cannot give its streams away, it goes on using them.
#[cfg(not(unix))]
pub(super) fn take_over(_path: &Path) -> anyhow::Result<()> {
    Ok(())
}

/// Writes what happens in a rank's run into its file.
pub(super) struct RankLog {
    file: File,
    interrupter: Interrupter,
}

impl RankLog {
    /// Into `path`; `interrupter` ends the run.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(super) fn open(path: &Path, interrupter: &Interrupter) -> anyhow::Result<Self> {
        Ok(Self { file: open_log(path)?, interrupter: interrupter.clone() })
    }

    fn write(&mut self, text: &str) {
        // A run does not end for want of words.
        let _ = writeln!(self.file, "{text}");
    }
}

impl Observer for RankLog {
    fn step(&mut self, record: &StepRecord, (_, total): (usize, usize)) {
        self.write(&progress_line(record, total, None));
    }

    fn evaluated(&mut self, record: &EvalRecord) {
        self.write(&evaluated_line(record));
    }

    fn note(&mut self, text: &str) {
        self.write(text);
    }

    fn should_stop(&mut self) -> bool {
        self.interrupter.should_stop()
    }
}
