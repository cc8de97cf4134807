//! `score`: what answers to a public benchmark are worth, without a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use tg_llava_benchmarks::dataset::Kind;
use tg_llava_benchmarks::llava::read_lines;
use tg_llava_benchmarks::report::{Outcome, Report};
use tg_llava_benchmarks::score::Predictions;
use tg_llava_benchmarks::score::option::Rules;
use tg_llava_benchmarks::table::Table;

use crate::args::OutputArgs;
use crate::console::{Console, print, print_json};
use crate::failure::Failure;
use crate::judge::{JudgeArgs, Scored};

/// Arguments of `score`.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// Name of the data set, such as MMBench_DEV_EN [default: as the file of --data is called]
    #[arg(long, value_name = "NAME")]
    pub benchmark: Option<String>,
    /// The data set as VLMEvalKit has it, a TSV file
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Answers as JSON lines, each with `index` and `prediction`
    #[arg(long, value_name = "FILE")]
    pub predictions: PathBuf,
    /// By whose rules options are read out of answers
    #[arg(long, value_enum, default_value_t = RulesArg::Current)]
    pub rules: RulesArg,
    /// Another model that judges.
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `--rules`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the values' help would repeat the option's")]
pub enum RulesArg {
    Current,
    #[value(name = "2024")]
    Of2024,
}

impl From<RulesArg> for Rules {
    fn from(value: RulesArg) -> Self {
        match value {
            RulesArg::Current => Self::Current,
            RulesArg::Of2024 => Self::Of2024,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where the files cannot be used, or do not belong together.
pub fn run(args: &ScoreArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let name = name(args)?;
    let kind = kind(&name)?;
    let table = Table::read(&read(&args.data)?, &args.data.to_string_lossy()).map_err(input)?;
    let predictions = predictions(&args.predictions)?;
    let beside = args.predictions.parent().unwrap_or(Path::new(""));
    let scored = Scored { table: &table, kind, predictions: &predictions };
    let (state, report) = state(args.judge.score(scored, args.rules.into(), beside)?);
    if console.json {
        return print_json(&json!({ "benchmark": name, "state": state, "report": report }), true);
    }
    print(&report.map_or_else(|| format!("{name}: {state}\n"), |report| self::table(&name, &report)))
}

/// What the data set `name` asks for.
///
/// # Errors
/// [`Failure::Input`] where it is not known.
pub fn kind(name: &str) -> Result<Kind, Failure> {
    Kind::of(name).ok_or_else(|| {
        Failure::input(format_args!(
            "{name:?} is no benchmark that is known; name it with --benchmark, as VLMEvalKit does: {}",
            Kind::NAMES.map(|(known, _)| known).join(", ")
        ))
    })
}

/// What scoring came to, and its report. Without a judge there is none where another model scores the answers; without answers in the
/// data set, its server scores them.
pub fn state(outcome: Outcome) -> (&'static str, Option<Report>) {
    match outcome {
        Outcome::Scored(report) => ("scored", Some(report)),
        Outcome::NotJudged => ("not judged", None),
        Outcome::NoAnswers => ("no answers", None),
    }
}

fn name(args: &ScoreArgs) -> Result<String, Failure> {
    let stem = || args.data.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = args.benchmark.clone().or_else(stem);
    name.ok_or_else(|| Failure::input("no benchmark named; add --benchmark"))
}

/// One answer.
#[derive(Debug, Deserialize)]
struct Line {
    index: Value,
    prediction: String,
}

fn predictions(path: &Path) -> Result<Predictions, Failure> {
    let lines: Vec<Line> = read_lines(&read(path)?, &path.to_string_lossy()).map_err(input)?;
    let mut answers = BTreeMap::new();
    for Line { index, prediction } in lines {
        let index = index.as_str().map_or_else(|| index.to_string(), str::to_owned);
        if answers.insert(index.clone(), prediction).is_some() {
            return Err(Failure::input(format_args!(
                "{}: index {index} has two predictions; keep one of them",
                path.display()
            )));
        }
    }
    Ok(Predictions::new(answers))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::input(format_args!("{}: {error}", path.display())))
}

fn input(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Input(error.into())
}

/// A report as a table.
pub fn table(name: &str, report: &Report) -> String {
    let mut text = format!("{name}, {} rows\n", report.items.len());
    for (split, scores) in &report.splits {
        text += &format!("{}\n", if split == "none" { "all" } else { split.as_str() });
        for (name, value) in scores {
            text += &format!("        {name:<48} {value:>10.4}\n");
        }
    }
    text
}
