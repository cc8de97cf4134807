//! `score`: what answers to a public benchmark are worth, without a model.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::args::OutputArgs;
use crate::benchmark::output::Summary;
use crate::benchmark::questions::Questions;
use crate::benchmark::scoring::{Places, Scoring};
use crate::benchmark::{ScoringArgs, read};
use crate::console::Console;
use crate::failure::Failure;

/// Arguments of `score`.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// The data set as VLMEvalKit has it, a TSV file; or LLaVA's file of questions
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Answers as JSON lines, each with `index` and `prediction`, or with what LLaVA's scripts write
    #[arg(long, value_name = "FILE")]
    pub predictions: PathBuf,
    /// Folder for verdicts, scores and what a benchmark's server takes [default: nothing is written]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// How answers are scored.
    #[command(flatten)]
    pub scoring: ScoringArgs,
    /// Output format.
    #[command(flatten)]
    pub print: OutputArgs,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where the files cannot be used, or do not belong together.
pub fn run(args: &ScoreArgs) -> Result<(), Failure> {
    let console = Console::new(&args.print);
    let ScoreArgs { data, predictions, scoring, .. } = args;
    let (name, harness) = (scoring.name(data)?, scoring.harness(data));
    let questions = Questions::new(&read(data)?, data, &name, harness)?;
    scoring.check(&questions)?;
    let answers = questions.read_answers(&read(predictions)?, predictions)?;
    let places = Places { data, replies: predictions.parent().unwrap_or(Path::new("")) };
    let found = match scoring.score(&questions, &answers, places, &console) {
        // What a server takes needs no annotations; that alone is worth a run, where it is written.
        Err(error) if args.output.is_some() && scoring.lacks_annotations(&error) => {
            match scoring.not_scored(error, &questions, &answers, data)? {
                Scoring { uploads, state, .. } if uploads.is_empty() => return Err(Failure::input(state)),
                found => found,
            }
        }
        found => found?,
    };
    let summary = Summary {
        name: &name,
        harness,
        rules: scoring.rules,
        output: args.output.as_deref(),
        answered: answers.count(),
        failures: &[],
        scoring: found,
    };
    summary.finish(Vec::new(), &console)
}
