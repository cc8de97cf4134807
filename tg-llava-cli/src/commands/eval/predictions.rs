//! The file of answers.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error};
use tg_llava_train::run::Prediction;

use crate::failure::Failure;

/// A file that takes an answer a line, each as it comes. Until the first one, it is as it was before.
#[derive(Debug)]
pub struct PredictionFile {
    path: PathBuf,
    file: File,
    existed: bool,
    lines: usize,
}

impl PredictionFile {
    /// Opens a file that is not there yet, or any file where `replace` says so.
    ///
    /// # Errors
    /// [`Failure::Input`] where it is there already or cannot be written.
    pub fn open(path: &Path, replace: bool) -> Result<Self, Failure> {
        let name = path.display();
        // In one go, so that of two runs at once only one gets the file.
        let (opened, existed) = match File::create_new(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if path.is_file() && !replace {
                    return Err(Failure::input(format_args!(
                        "--predictions {name}: there is such a file already; name another one, or replace it with --force"
                    )));
                }
                (OpenOptions::new().write(true).create(true).truncate(false).open(path), true)
            }
            opened => (opened, false),
        };
        let file = opened.with_context(|| format!("--predictions {name} cannot be written"));
        Ok(Self { path: path.to_path_buf(), file: file.map_err(Failure::Input)?, existed, lines: 0 })
    }

    /// Appends an answer.
    ///
    /// # Errors
    /// [`Failure::Run`] where the file cannot be written.
    pub fn write(&mut self, prediction: &Prediction) -> Result<(), Failure> {
        let mut write = || -> Result<(), Error> {
            if self.lines == 0 && self.path.is_file() {
                self.file.set_len(0)?;
            }
            let line = serde_json::to_string(prediction)? + "\n";
            Ok(self.file.write_all(line.as_bytes())?)
        };
        write()
            .with_context(|| format!("{} could not be written", self.path.display()))
            .map_err(Failure::Run)?;
        self.lines += 1;
        Ok(())
    }
}

impl Drop for PredictionFile {
    fn drop(&mut self) {
        if self.lines == 0 && !self.existed {
            // An empty file would stand in the way of the next try; where it cannot be removed, that try says so.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
