//! Prompts, token ids and labels against the reference's.

mod guides;
mod labels;
mod prompts;
mod texts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use tg_llava_core::tokenizer::TextTokenizer;

use super::report::Row;

/// Compares the folder `dir`, which holds any of `prompts.json`, `tokenization.json` and `preprocess.json`, and the
/// tokenizers that the latter two name under `tokenizers/`.
///
/// # Errors
/// Where a file cannot be read or is not laid out as expected.
pub fn run(dir: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if let Some(file) = read(&dir.join("prompts.json"))? {
        prompts::compare(&file, &mut rows);
    }
    let mut tokenizers = Tokenizers { dir: dir.join("tokenizers"), loaded: BTreeMap::new() };
    let data: Option<labels::File> = read(&dir.join("preprocess.json"))?;
    let tokenization = dir.join("tokenization.json");
    if let Some(file) = read(&tokenization)? {
        texts::compare(&file, &mut tokenizers, &mut rows)?;
    }
    if let Some(file) = read(&tokenization)? {
        let conversations = data.as_ref().map_or(&[][..], |data| &data.conversations);
        guides::compare(&file, conversations, &tokenizers.dir.join("clip"), &mut rows)?;
    }
    if let Some(data) = &data {
        labels::compare(data, &mut tokenizers, &mut rows)?;
    }
    let expected = "prompts.json, tokenization.json or preprocess.json";
    anyhow::ensure!(!rows.is_empty(), "{}: expected {expected}", dir.display());
    Ok(rows)
}

/// The JSON in `path`; `None` where there is no such file.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).map(Some).with_context(|| path.display().to_string())
}

/// Collects the comparisons of one group of the report.
#[derive(Default)]
struct Tally {
    compared: usize,
    difference: Option<String>,
}

impl Tally {
    /// Counts one comparison; `what` is only kept for the first difference.
    fn check(&mut self, same: bool, what: impl FnOnce() -> String) {
        self.compared += 1;
        if !same && self.difference.is_none() {
            self.difference = Some(what());
        }
    }

    fn row(self, group: impl Into<String>, rows: &mut Vec<Row>) {
        if self.compared > 0 {
            rows.push(Row::exact(group, self.compared, self.difference));
        }
    }

    /// The row of a group where the reference is wrong: a difference that remains is still a failure.
    fn by_design(self, group: impl Into<String>, note: &str, rows: &mut Vec<Row>) {
        match self.difference {
            _ if self.compared == 0 => {}
            None => rows.push(Row::by_design(group, self.compared, note)),
            difference => rows.push(Row::exact(group, self.compared, difference)),
        }
    }
}

/// Where two lists part, for a report.
fn parting<T: PartialEq + std::fmt::Debug>(ours: &[T], theirs: &[T]) -> String {
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    format!(
        "at {at}: {:?}, expected {:?} (lengths {} and {})",
        ours.get(at),
        theirs.get(at),
        ours.len(),
        theirs.len()
    )
}

/// The tokenizers under a folder, each loaded once.
struct Tokenizers {
    dir: PathBuf,
    loaded: BTreeMap<String, TextTokenizer>,
}

impl Tokenizers {
    fn get(&mut self, name: &str) -> Result<&TextTokenizer> {
        if !self.loaded.contains_key(name) {
            self.loaded.insert(name.into(), TextTokenizer::from_dir(self.dir.join(name))?);
        }
        Ok(&self.loaded[name])
    }

    /// The same tokenizer built from the files beside `tokenizer.json`, where there are any: what the reference's
    /// slow classes are built from.
    fn rebuilt(&self, name: &str) -> Result<Option<TextTokenizer>> {
        let dir = self.dir.join(name);
        Ok(if dir.join("tokenizer.model").exists() {
            Some(TextTokenizer::from_sentencepiece(dir)?)
        } else if dir.join("merges.txt").exists() {
            Some(TextTokenizer::from_vocab_and_merges(dir)?)
        } else {
            None
        })
    }
}
