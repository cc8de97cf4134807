//! Recorded evaluations of public benchmarks: prompts, verdicts, uploads and scores.

mod compare;
mod kit;
mod llava;
mod replay;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tg_llava_benchmarks::llava::read_lines;

use self::compare::compare;
use super::report::Row;

/// Whether `dir` holds a recorded evaluation.
pub fn is_benchmark(dir: &Path) -> bool {
    dir.join("meta.json").is_file()
        && ["predictions.jsonl", "answers", "prompts.jsonl"].iter().any(|name| dir.join(name).exists())
}

/// Compares the folder `dir`, whose `meta.json` names the harness and the data set.
///
/// # Errors
/// Where a file cannot be read or is not laid out as expected.
pub fn run(dir: &Path) -> Result<Vec<Row>> {
    let folder = Folder { dir };
    let meta = folder.json("meta.json")?;
    let name = meta["dataset"].as_str().context("meta.json: no `dataset`")?;
    let rows = match meta["harness"].as_str() {
        Some("llava") => llava::run(&folder, name)?,
        Some("vlmevalkit") | None => kit::run(&folder, name)?,
        Some(other) => anyhow::bail!("meta.json: `harness` is {other:?}; expected vlmevalkit or llava"),
    };
    anyhow::ensure!(!rows.is_empty(), "{}: nothing there can be compared", dir.display());
    Ok(rows)
}

/// A recorded evaluation.
struct Folder<'a> {
    dir: &'a Path,
}

impl Folder<'_> {
    fn has(&self, name: &str) -> bool {
        self.dir.join(name).is_file()
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn json(&self, name: &str) -> Result<Value> {
        serde_json::from_str(&self.text(name)?).with_context(|| name.to_owned())
    }

    fn lines(&self, name: &str) -> Result<Vec<Value>> {
        Ok(read_lines(&self.text(name)?, name)?)
    }
}

/// Compares the values `keys` of entries in their order.
fn ordered(group: &str, found: &[Value], golden: &[Value], keys: &[&str]) -> Vec<Row> {
    let of = |entries: &[Value]| -> Value {
        entries.iter().map(|entry| keys.iter().map(|key| entry[key].clone()).collect::<Value>()).collect()
    };
    let count = json!([found.len(), golden.len()]);
    match found.len() == golden.len() {
        true => vec![compare(group, &of(found), &of(golden))],
        false => vec![Row::exact(group, golden.len(), Some(format!("{count} entries here and recorded")))],
    }
}
