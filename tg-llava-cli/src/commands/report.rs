//! `report`: the scores of several runs in one table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde_json::json;
use tg_llava_benchmarks::dataset::Kind;
use tg_llava_benchmarks::llava::Benchmark;
use tg_llava_benchmarks::report::Report;

use crate::args::OutputArgs;
use crate::benchmark::output::SCORES;
use crate::console::{Console, print, print_json};
use crate::failure::Failure;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A row of the table: a folder of --output, or one with several of them below; NAME=DIR calls it otherwise than its folder
    #[arg(required = true, value_name = "RUN_DIR")]
    pub runs: Vec<String>,
    /// Every score, one a line and a column for each run, instead of those that papers give
    #[arg(long)]
    pub all: bool,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What a run left in its folder.
#[derive(Debug, Deserialize)]
struct Scores {
    benchmark: String,
    harness: String,
    #[serde(default)]
    rules: Option<String>,
    state: String,
    #[serde(default)]
    failures: Vec<String>,
    report: Option<Report>,
}

/// A row of the table: runs of one model.
#[derive(Debug)]
struct Row {
    name: String,
    /// By what they are called in the table.
    runs: BTreeMap<String, Run>,
}

/// A run of one benchmark.
#[derive(Debug)]
struct Run {
    scores: Scores,
    /// What decided its answers, where that is known.
    settings: BTreeMap<String, String>,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where a folder holds no run, or two of one benchmark.
pub fn run(args: &ReportArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let rows = args.runs.iter().map(|run| Row::read(run)).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    if names.len() < rows.len() {
        return Err(Failure::input("two runs have the same name; write NAME=DIR for one of them"));
    }
    if console.json {
        let run = |row: &Row, run: &Run| {
            let Scores { benchmark, harness, rules, state, failures, report } = &run.scores;
            let headlines = run.headlines().into_iter().collect::<BTreeMap<_, _>>();
            json!({
                "run": row.name, "benchmark": benchmark, "harness": harness, "rules": rules, "state": state,
                "headlines": headlines, "splits": report.as_ref().map(|report| &report.splits),
                "unanswered": failures.len(), "settings": run.settings,
            })
        };
        let runs = rows.iter().flat_map(|row| row.runs.values().map(move |of| run(row, of)));
        return print_json(&runs.collect::<serde_json::Value>(), true);
    }
    let (head, lines) = if args.all { every_score(&rows) } else { headlines(&rows) };
    print(&(markdown(&head, &lines) + &notes(&rows)))
}

impl Row {
    fn read(argument: &str) -> Result<Self, Failure> {
        let (name, folder) = match argument.split_once('=') {
            Some((name, folder)) if !name.is_empty() && !Path::new(argument).exists() => (Some(name), folder),
            _ => (None, argument),
        };
        let folder = Path::new(folder);
        let called =
            || folder.file_name().map_or_else(|| argument.to_owned(), |n| n.to_string_lossy().into_owned());
        let name = name.map_or_else(called, str::to_owned);
        let mut runs = BTreeMap::new();
        for folder in folders_of_runs(folder)? {
            let run = Run::read(&folder)?;
            if runs.insert(run.title(), run).is_some() {
                return Err(Failure::input(format_args!(
                    "{}: a second run of the same benchmark in {name}; give each its own row",
                    folder.display()
                )));
            }
        }
        Ok(Self { name, runs })
    }
}

/// `folder`, or those one or two below it, that hold scores.
fn folders_of_runs(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::input(format_args!("{}: {error}", folder.display()));
    let below = |folder: &PathBuf| -> std::io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            paths.extend(path.is_dir().then_some(path));
        }
        paths.sort();
        Ok(paths)
    };
    let mut level = vec![folder.to_path_buf()];
    let mut found = Vec::new();
    for _ in 0..3 {
        let (runs, others): (Vec<_>, Vec<_>) =
            level.into_iter().partition(|path| path.join(SCORES).is_file());
        found.extend(runs);
        let next = others.iter().map(below).collect::<Result<Vec<_>, _>>().map_err(|e| wrong(&e))?;
        level = next.concat();
    }
    if found.is_empty() {
        return Err(wrong(&format_args!("no {SCORES} here or below; `eval` and `score --output` write it")));
    }
    Ok(found)
}

impl Run {
    fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(SCORES);
        let wrong =
            |error: &dyn std::fmt::Display| Failure::input(format_args!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|e| wrong(&e))?;
        let scores = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
        // `score` leaves none, since it does not know.
        let settings = std::fs::read_to_string(folder.join("run.json")).ok();
        let settings = settings.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(Self { scores, settings })
    }

    /// The benchmark, with what keeps its scores from being compared with others.
    fn title(&self) -> String {
        let Scores { benchmark, harness, rules, .. } = &self.scores;
        let of_llava = harness == "llava";
        let old = rules.as_deref().filter(|rules| !of_llava && *rules != "current");
        let marks: Vec<&str> = of_llava.then_some("LLaVA").into_iter().chain(old).collect();
        if marks.is_empty() { benchmark.clone() } else { format!("{benchmark} ({})", marks.join(", ")) }
    }

    /// Why there are no scores, in a few words.
    fn state(&self) -> String {
        self.scores.state.split([';', ':', ',']).next().unwrap_or_default().to_owned()
    }

    /// Scores as papers give them, by title.
    fn headlines(&self) -> Vec<(String, f64)> {
        let Scores { benchmark, harness, report, .. } = &self.scores;
        let Some(report) = report else { return Vec::new() };
        let found = match harness.as_str() {
            "llava" => Benchmark::of(benchmark).map(|benchmark| benchmark.headlines(report)),
            _ => Kind::of(benchmark).map(|kind| kind.headlines(report)),
        };
        let title = self.title();
        let named = |headline: tg_llava_benchmarks::headline::Headline| {
            (format!("{title} {}", headline.name).trim_end().to_owned(), headline.value)
        };
        found.unwrap_or_default().into_iter().map(named).collect()
    }
}

/// A run a line, a score a column.
fn headlines(rows: &[Row]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut columns: Vec<(String, String)> = Vec::new();
    let titles: BTreeSet<&String> = rows.iter().flat_map(|row| row.runs.keys()).collect();
    for title in titles {
        let of_title = rows.iter().filter_map(|row| row.runs.get(title));
        let before = columns.len();
        for (name, _) in of_title.flat_map(Run::headlines) {
            if !columns.iter().any(|(_, known)| *known == name) {
                columns.push((title.clone(), name));
            }
        }
        if columns.len() == before {
            columns.push((title.clone(), title.clone()));
        }
    }
    let cell = |row: &Row, title: &String, name: &String| {
        let Some(run) = row.runs.get(title) else { return "–".to_owned() };
        let value = run.headlines().into_iter().find(|(known, _)| known == name);
        value.map_or_else(|| run.state(), |(_, value)| format!("{value:.2}"))
    };
    let line = |row: &Row| {
        let cells = columns.iter().map(|(title, name)| cell(row, title, name));
        std::iter::once(row.name.clone()).chain(cells).collect()
    };
    let head = std::iter::once("run".to_owned()).chain(columns.iter().map(|(_, name)| name.clone()));
    (head.collect(), rows.iter().map(line).collect())
}

/// A score a line, a run a column.
fn every_score(rows: &[Row]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut names: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for (title, run) in rows.iter().flat_map(|row| &row.runs) {
        for (split, scores) in run.scores.report.iter().flat_map(|report| &report.splits) {
            names.extend(scores.keys().map(|name| (title.as_str(), split.as_str(), name.as_str())));
        }
    }
    let value = |row: &Row, (title, split, name): (&str, &str, &str)| -> Option<f64> {
        row.runs.get(title)?.scores.report.as_ref()?.splits.get(split)?.get(name).copied()
    };
    let line = |&key: &(&str, &str, &str)| {
        let (title, split, name) = key;
        let split = if split == "none" { "" } else { split };
        let cells =
            rows.iter().map(|row| value(row, key).map_or("–".to_owned(), |value| format!("{value:.4}")));
        [title, split, name].map(str::to_owned).into_iter().chain(cells).collect()
    };
    let head = ["benchmark", "split", "score"].map(str::to_owned).into_iter();
    let head = head.chain(rows.iter().map(|row| row.name.clone()));
    (head.collect(), names.iter().map(line).collect())
}

fn markdown(head: &[String], lines: &[Vec<String>]) -> String {
    let row = |cells: &[String]| {
        let cells: Vec<String> =
            cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = format!("|---|{}\n", "--:|".repeat(head.len() - 1));
    row(head) + &rule + &lines.iter().map(|line| row(line)).collect::<String>()
}

/// What keeps runs from being compared: other settings than the model's, and questions without an answer.
fn notes(rows: &[Row]) -> String {
    let mut notes = Vec::new();
    let titles: BTreeSet<&String> = rows.iter().flat_map(|row| row.runs.keys()).collect();
    for title in titles {
        let runs: Vec<(&Row, &Run)> =
            rows.iter().filter_map(|row| Some((row, row.runs.get(title)?))).collect();
        let known = runs.iter().filter(|(_, run)| !run.settings.is_empty());
        let names: BTreeSet<&String> = known.clone().flat_map(|(_, run)| run.settings.keys()).collect();
        for name in names.into_iter().filter(|name| *name != "model") {
            let value = |run: &Run| run.settings.get(name).map_or("none", String::as_str).to_owned();
            let values: BTreeSet<String> = known.clone().map(|(_, run)| value(run)).collect();
            if values.len() > 1 {
                let each: Vec<String> =
                    known.clone().map(|(row, run)| format!("{} {}", row.name, short(&value(run)))).collect();
                notes.push(format!("{title}: {name} differs ({})", each.join(", ")));
            }
        }
        for (row, run) in runs.iter().filter(|(_, run)| !run.scores.failures.is_empty()) {
            let count = run.scores.failures.len();
            notes.push(format!("{title}, {}: {count} question(s) have no answer", row.name));
        }
    }
    let lines: String = notes.iter().map(|note| format!("- {note}\n")).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// A value short enough for a note; digests are long.
fn short(value: &str) -> String {
    value.chars().take(16).collect()
}
