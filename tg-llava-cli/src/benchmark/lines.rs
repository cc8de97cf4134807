//! Files of JSON lines that a run appends to, and that the next one goes on with.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// A file that takes a line at a time, and is this run's alone until it is dropped or the program ends, however it does.
#[derive(Debug)]
pub struct LineFile {
    path: PathBuf,
    file: File,
}

impl LineFile {
    /// Opens a file of what errors call `what`, or begins it, and gives its lines. What a kill left of a last line is cut; anything else that
    /// is no such line stays as it is.
    ///
    /// # Errors
    /// [`Failure::Input`] where it cannot be read or written, another run has it, or it holds something else.
    pub fn open<T: DeserializeOwned>(path: &Path, what: &str) -> Result<(Self, Vec<T>), Failure> {
        let unusable = |error: std::io::Error| Failure::Input(anyhow!("{}: {error}", path.display()));
        let mut file = alone(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unusable)?;
        let (mut lines, mut start) = (Vec::new(), 0);
        for (line, number) in bytes.split_inclusive(|&byte| byte == b'\n').zip(1..) {
            let is_whole = line.ends_with(b"\n");
            match serde_json::from_slice(line) {
                Ok(value) => lines.push(value),
                Err(error) if error.is_eof() && !is_whole => {
                    file.set_len(start as u64).map_err(unusable)?;
                    break;
                }
                Err(_) => {
                    let (path, line) = (path.display(), String::from_utf8_lossy(line));
                    return Err(Failure::input(format_args!(
                        "{path}, line {number}: this is no {what}: {}",
                        line.trim_end()
                    )));
                }
            }
            if !is_whole {
                file.write_all(b"\n").map_err(unusable)?;
            }
            start += line.len();
        }
        Ok((Self { path: path.to_path_buf(), file }, lines))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let line = serde_json::to_string(value)? + "\n";
        self.file
            .write_all(line.as_bytes())
            .with_context(|| format!("{} could not be written", self.path.display()))
    }

    /// Puts `text` in the place of all lines, in one step, so that no kill leaves less; the file stays this run's alone.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn replace(&mut self, text: &str) -> std::io::Result<()> {
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, text)?;
        let file = OpenOptions::new().append(true).open(&beside)?;
        file.lock()?;
        std::fs::rename(&beside, &self.path)?;
        self.file = file;
        Ok(())
    }
}

/// Opens a file, or begins it, for this run alone.
///
/// # Errors
/// [`Failure::Input`] where it cannot be opened, or another run has it.
pub fn alone(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().create(true).read(true).append(true).open(path);
    let file = opened.map_err(|error| Failure::Input(anyhow!("{}: {error}", path.display())))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Failure::input(format_args!(
            "{}: another run is writing here; wait for it, or name another place",
            path.display()
        ))),
        _ => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn open(path: &Path) -> Result<(LineFile, Vec<Value>), String> {
        LineFile::open(path, "line").map_err(|error| error.message().unwrap_or_default())
    }

    #[test]
    fn what_a_kill_left_of_a_last_line_is_cut_even_within_a_character() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let whole = "{\"a\":\"ü\"}\n";
        let half = &whole.as_bytes()[..7];
        assert!(std::str::from_utf8(half).is_err());
        std::fs::write(&path, [whole.as_bytes(), half].concat()).unwrap();
        let (mut file, lines) = open(&path).unwrap();
        assert_eq!(lines, [json!({ "a": "ü" })]);
        file.write(&lines[0]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole.repeat(2));
    }

    #[test]
    fn a_line_that_only_lacks_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{\"a\":1}").unwrap();
        let (mut file, lines) = open(&path).unwrap();
        file.write(&lines[0]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"a\":1}\n");
    }

    #[test]
    fn a_file_whose_lines_are_replaced_stays_this_runs_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let (mut file, _) = open(&path).unwrap();
        file.write(&json!(1)).unwrap();
        file.replace("2\n").unwrap();
        assert!(open(&path).unwrap_err().contains("another run is writing here"));
        file.write(&json!(3)).unwrap();
        drop(file);
        assert_eq!(open(&path).unwrap().1, [2, 3]);
    }

    #[test]
    fn another_file_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        for text in ["some text", "some text\n", "{\"a\":1}\nmine\n{\"a"] {
            std::fs::write(&path, text).unwrap();
            let message = open(&path).unwrap_err();
            assert!(message.contains("this is no line: "), "{message}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
