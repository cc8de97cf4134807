//! What a benchmark came to: a table, and files for other scorers.

use std::path::{Path, PathBuf};

use serde_json::json;
use tg_llava_benchmarks::llava::upload::{self, Upload};
use tg_llava_benchmarks::report::{Item, Report};
use tg_llava_benchmarks::table::separated;

use super::scoring::Scoring;
use super::{Harness, RulesArg};
use crate::console::{Console, print, print_json};
use crate::failure::Failure;

/// How many failures are printed before the rest is counted.
const SHOWN: usize = 20;

/// Each row's verdict.
const VERDICTS: &str = "verdicts.csv";

/// The file that a run's scores are in.
pub const SCORES: &str = "scores.json";

/// All that the end of a run tells.
#[derive(Debug)]
pub struct Summary<'a> {
    /// The benchmark.
    pub name: &'a str,
    /// Whose evaluation it is.
    pub harness: Harness,
    /// How options were read.
    pub rules: RulesArg,
    /// Where files go.
    pub output: Option<&'a Path>,
    /// How many answers there are.
    pub answered: usize,
    /// Rows without answer, and why.
    pub failures: &'a [String],
    /// What it came to.
    pub scoring: Scoring,
}

impl Summary<'_> {
    /// Writes the files, and prints the table or, with `--json`, everything. `files` were written already.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn finish(&self, mut files: Vec<PathBuf>, console: &Console) -> Result<(), Failure> {
        let Scoring { state, report, uploads } = &self.scoring;
        let value = json!({
            "benchmark": self.name,
            "harness": self.harness.name(),
            "rules": self.rules.name(),
            "state": state,
            "answered": self.answered,
            "failures": self.failures,
            "report": report,
        });
        if let Some(output) = self.output {
            for Upload { name, text } in uploads {
                files.push(write(output, name, text)?);
            }
            if let Some(report) = report {
                files.push(write(output, VERDICTS, &verdicts(report))?);
            }
            let pretty = serde_json::to_string_pretty(&value).map_err(|e| Failure::Run(e.into()))?;
            files.push(write(output, SCORES, &(pretty + "\n"))?);
        }
        for failure in self.failures.iter().take(SHOWN) {
            console.error(failure);
        }
        if self.failures.len() > SHOWN {
            let more = self.failures.len() - SHOWN;
            console.error(format_args!("and {more} questions more; {SCORES} lists all"));
        }
        if console.json {
            return print_json(&value, true);
        }
        let mut text = match report {
            Some(report) => table(self.name, report),
            None => format!("{}: {state}\n", self.name),
        };
        if !self.failures.is_empty() {
            text += &format!("{} question(s) have no answer\n", self.failures.len());
        }
        if !files.is_empty() {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            console.note(format_args!("written: {}", files.join(", ")));
        }
        print(&text)
    }
}

/// VLMEvalKit's data set `name` with its answers.
pub fn data_set(name: &str) -> String {
    format!("{name}.tsv")
}

/// The files in `folder` that were made of answers, but for that of [`data_set`].
///
/// # Errors
/// Where a folder cannot be read.
pub fn made(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        [VERDICTS, SCORES].iter().chain(&upload::FILES).map(|name| folder.join(name)).collect();
    let by_task = folder.join(upload::BY_TASK);
    if by_task.is_dir() {
        let entries: Vec<PathBuf> = std::fs::read_dir(by_task)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.extend(entries.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "txt")));
    }
    Ok(paths)
}

/// Writes a file in whole.
///
/// # Errors
/// [`Failure::Run`] where that fails.
pub fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    let folder = path.parent().unwrap_or(folder);
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text));
    written.map_err(|error| Failure::Run(anyhow::anyhow!("{}: {error}", path.display())))?;
    Ok(path)
}

/// A report as a table.
fn table(name: &str, report: &Report) -> String {
    let mut text = format!("{name}, {} rows\n", report.items.len());
    for (split, scores) in &report.splits {
        text += &format!("{}\n", if split == "none" { "all" } else { split.as_str() });
        for (name, value) in scores {
            text += &format!("        {name:<48} {value:>10.4}\n");
        }
    }
    text
}

/// Every row's verdict.
fn verdicts(report: &Report) -> String {
    let header = ["index", "read", "score"].map(str::to_owned).to_vec();
    let line = |item: &Item| {
        let score = item.score.map_or_else(String::new, |score| score.to_string());
        vec![item.index.clone(), item.read.clone().unwrap_or_default(), score]
    };
    separated(std::iter::once(header).chain(report.items.iter().map(line)), ',')
}
