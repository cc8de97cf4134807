//! The file of a benchmark's answers, and whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use serde_json::Value;
use tg_llava_core::config::{locate_tower, read_model_config_over};
use tg_llava_core::weights::{Adapter, TensorSource, base_of, open_sources};
use tg_llava_train::checkpoint::{Fingerprint, hash_bytes, hash_file};

use crate::benchmark::Harness;
use crate::benchmark::lines::{LineFile, alone};
use crate::benchmark::output;
use crate::benchmark::questions::{Questions, repetition};
use crate::checkpoint::Folders;
use crate::failure::Failure;

/// Answers, a line each.
const ANSWERS: &str = "answers.jsonl";
/// What decides them. It stands in a file of its own, so that scorers can read the answers.
const RUN: &str = "run.json";

/// A file that takes an answer a line, each as it comes, and knows those that it has.
#[derive(Debug)]
pub struct AnswerFile {
    file: LineFile,
    answers: BTreeMap<String, String>,
}

impl AnswerFile {
    /// Opens the answers in `folder`, which must be those of the run that `fingerprint` tells; `replace` removes them
    /// first, with all that was made of them.
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
            // Not from under a run that is writing.
            let _alone = alone(&path)?;
            let made = output::made(folder).map_err(|error| unusable(folder, error))?;
            for path in made.iter().chain(&data_set_of(&run)).chain([&path, &run]) {
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
        let (file, lines) = LineFile::open::<Value>(&path, "answer")?;
        let (mut answers, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for (line, number) in lines.iter().zip(1..) {
            let (index, answer) =
                questions.index_of(line).zip(questions.answer_of(line)).ok_or_else(|| {
                    Failure::input(format_args!(
                        "{}, line {number}: this is no answer: {line}",
                        path.display()
                    ))
                })?;
            let times: &mut usize = seen.entry(index.clone()).or_default();
            answers.insert(repetition(index, *times), answer.to_owned());
            *times += 1;
        }
        Ok(Self { file, answers })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
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
        self.file.write(&questions.answered(row, answer)).map_err(Failure::Run)?;
        self.answers.insert(questions.index(row), answer.to_owned());
        Ok(())
    }

    /// Puts the lines into the order of the questions, which those lack that failed before and were asked again.
    ///
    /// # Errors
    /// [`Failure::Run`] where the file cannot be written.
    pub fn sort(&mut self, questions: &Questions) -> Result<(), Failure> {
        let (mut text, mut count) = (String::new(), 0);
        for row in questions.order() {
            if let Some(answer) = self.answers.get(&questions.index(row)) {
                count += 1;
                let line = serde_json::to_string(&questions.answered(row, answer));
                text += &(line.map_err(|e| Failure::Run(e.into()))? + "\n");
            }
        }
        let path = self.path().to_path_buf();
        let failed = |error| Failure::Run(anyhow!("{}: {error}", path.display()));
        // What somebody else added stays.
        if count < self.answers.len() || std::fs::read_to_string(&path).map_err(failed)? == text {
            return Ok(());
        }
        self.file.replace(&text).map_err(failed)
    }
}

/// The data set with answers that the run told by `run` has written, which bears its benchmark's name.
fn data_set_of(run: &Path) -> Option<PathBuf> {
    let told: Fingerprint = serde_json::from_str(&std::fs::read_to_string(run).ok()?).ok()?;
    let ours = told.get("harness").is_some_and(|harness| harness == Harness::Vlmevalkit.name());
    let name = told
        .get("benchmark")
        .filter(|name| ours && Path::new(name).file_name().is_some_and(|last| last == name.as_str()))?;
    Some(run.with_file_name(output::data_set(name)))
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

/// Kinds of files beside weights that decide an answer: configurations and vocabularies.
const BESIDE: [&str; 3] = ["json", "model", "txt"];

/// A digest of what is loaded of a checkpoint: its weights, and those of the decoder and the towers that are found by their names, with
/// all that lies beside them. It does not depend on where they lie.
///
/// # Errors
/// Where a file cannot be found or read.
pub fn model_digest(Folders { model, base }: &Folders) -> Result<String, Failure> {
    let base = base_of(model, base.as_deref())?;
    let config = read_model_config_over(model, base.as_deref())?;
    let source = open_sources(model, &config, base.as_deref())?;
    let paths = |source: &TensorSource| -> BTreeSet<PathBuf> {
        source.iter().map(|(_, tensor)| tensor.path.to_path_buf()).collect()
    };
    let mut files = paths(&source);
    if Adapter::is_in(model) {
        files.extend(paths(Adapter::open(model)?.matrices()));
    }
    let mut folders: BTreeSet<PathBuf> = files
        .iter()
        .filter(|file| base.as_ref() != Some(*file))
        .filter_map(|file| Some(file.parent()?.to_path_buf()))
        .collect();
    folders.insert(model.clone());
    // Tokenizer and processor are those of a tower's folder, even where its weights are in the model's files.
    for tower in config.multimodal.iter().flat_map(|mm| [&mm.towers.vision, &mm.towers.text]) {
        let place = locate_tower(model, base.as_deref(), tower);
        folders.extend(place);
    }
    folders.extend(base.filter(|base| base.is_dir()));
    for folder in &folders {
        let entries: Vec<PathBuf> = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(|error| unusable(folder, error))?;
        let is_beside =
            |path: &PathBuf| path.extension().is_some_and(|kind| BESIDE.iter().any(|known| kind == *known));
        files.extend(entries.into_iter().filter(|path| is_beside(path) && path.is_file()));
    }
    let digest = |file: &PathBuf| -> Result<String, Failure> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        Ok(format!("{name} {}\n", hash_file(file).map_err(|e| Failure::Input(e.into()))?))
    };
    let digests = files.iter().map(digest).collect::<Result<BTreeSet<String>, Failure>>()?;
    Ok(hash_bytes(digests.into_iter().collect::<String>().as_bytes()))
}
