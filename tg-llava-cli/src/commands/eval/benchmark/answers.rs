//! The file of a benchmark's answers, and whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde_json::Value;
use tg_llava_train::checkpoint::{Fingerprint, hash_bytes, hash_file};

use crate::benchmark::questions::{Questions, repetition};
use crate::failure::Failure;

/// Answers, a line each.
const ANSWERS: &str = "answers.jsonl";
/// What decides them. It stands in a file of its own, so that scorers can read the answers.
const RUN: &str = "run.json";

/// A file that takes an answer a line, each as it comes, and knows those that it has.
#[derive(Debug)]
pub struct AnswerFile {
    path: PathBuf,
    file: File,
    answers: BTreeMap<String, String>,
}

impl AnswerFile {
    /// Opens the answers in `folder`, which must be those of the run that `fingerprint` tells; `replace` removes them first.
    ///
    /// # Errors
    /// [`Failure::Input`] where they are those of another run, or cannot be read.
    pub fn open(
        folder: &Path,
        fingerprint: &Fingerprint,
        questions: &Questions,
        replace: bool,
    ) -> Result<Self, Failure> {
        let (path, run) = (folder.join(ANSWERS), folder.join(RUN));
        if replace {
            for path in [&path, &run] {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(unusable(path, error)),
                    _ => {}
                }
            }
        }
        match std::fs::read_to_string(&run) {
            Ok(text) => check(&run, &text, fingerprint)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if path.exists() {
                    return Err(Failure::input(format_args!(
                        "{}: answers of a run that is not known, since there is no {RUN} beside them; name another --output, or \
                         replace them with --force",
                        path.display()
                    )));
                }
                let text = serde_json::to_string_pretty(fingerprint).map_err(|e| Failure::Run(e.into()))?;
                std::fs::write(&run, text + "\n").map_err(|error| unusable(&run, error))?;
            }
            Err(error) => return Err(unusable(&run, error)),
        }
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let file = opened.map_err(|error| unusable(&path, error))?;
        // The lock ends with the program, however that ends.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Failure::input(format_args!(
                "{}: another run is writing here; wait for it, or name another --output",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| unusable(&path, error))?;
        // What a kill left of a last line is answered again.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(|error| unusable(&path, error))?;
        let (mut answers, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for (at, line) in text[..whole].lines().enumerate() {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            let (index, answer) =
                questions.index_of(&value).zip(questions.answer_of(&value)).ok_or_else(|| {
                    Failure::input(format_args!(
                        "{}, line {}: this is no answer: {line}",
                        path.display(),
                        at + 1
                    ))
                })?;
            let times: &mut usize = seen.entry(index.clone()).or_default();
            answers.insert(repetition(index, *times), answer.to_owned());
            *times += 1;
        }
        Ok(Self { path, file, answers })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the row of this name is answered.
    pub fn has(&self, index: &str) -> bool {
        self.answers.contains_key(index)
    }

    /// All answers by the names of their rows.
    pub fn answers(&self) -> &BTreeMap<String, String> {
        &self.answers
    }

    /// Appends an answer.
    ///
    /// # Errors
    /// [`Failure::Run`] where the file cannot be written.
    pub fn write(&mut self, questions: &Questions, row: usize, answer: &str) -> Result<(), Failure> {
        let line =
            serde_json::to_string(&questions.answered(row, answer)).map_err(|e| Failure::Run(e.into()))?;
        let written = self.file.write_all((line + "\n").as_bytes());
        written
            .with_context(|| format!("{} could not be written", self.path.display()))
            .map_err(Failure::Run)?;
        self.answers.insert(questions.index(row), answer.to_owned());
        Ok(())
    }
}

/// Fails unless the answers in a folder are those of the run that is started.
fn check(path: &Path, text: &str, now: &Fingerprint) -> Result<(), Failure> {
    let kept: Fingerprint = serde_json::from_str(text).map_err(|error| {
        Failure::input(format_args!("{}: {error}; start anew with --force", path.display()))
    })?;
    let all: BTreeSet<&String> = now.keys().chain(kept.keys()).collect();
    let names: Vec<&str> =
        all.into_iter().filter(|name| kept.get(*name) != now.get(*name)).map(String::as_str).collect();
    if names.is_empty() {
        return Ok(());
    }
    let value = |of: &Fingerprint, name: &str| of.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
    let each = names.iter().map(|name| format!("{name}: {}, now {}", value(&kept, name), value(now, name)));
    Err(Failure::input(format_args!(
        "{}: the answers here are of another run ({}); name another --output, or replace them with --force",
        path.display(),
        each.collect::<Vec<_>>().join("; ")
    )))
}

fn unusable(path: &Path, error: std::io::Error) -> Failure {
    Failure::Input(anyhow!("{}: {error}", path.display()))
}

/// Kinds of files that a model is made of.
const PARTS: [&str; 5] = ["bin", "json", "model", "safetensors", "txt"];

/// A digest of a checkpoint: of all files in its folders, towers and base included, that decide an answer. A base may be one file.
///
/// # Errors
/// Where a file cannot be read.
pub fn model_digest(model: &Path, base: Option<&Path>) -> Result<String, Failure> {
    let mut digests = String::new();
    for folder in [Some(model), base].into_iter().flatten() {
        if folder.is_file() {
            digests += &hash_file(folder).map_err(|e| Failure::Input(e.into()))?;
            continue;
        }
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
                .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
                .map_err(|error| unusable(&folder, error))?;
            paths.sort();
            for path in paths {
                let is_part = path.extension().is_some_and(|kind| PARTS.iter().any(|part| kind == *part));
                // A folder of a folder is a tower; a checkpoint in training keeps more below.
                if path.is_dir() && folder == model && path.join("config.json").is_file() {
                    folders.push(path);
                } else if is_part && path.is_file() {
                    digests += &hash_file(&path).map_err(|e| Failure::Input(e.into()))?;
                }
            }
        }
    }
    Ok(hash_bytes(digests.as_bytes()))
}
