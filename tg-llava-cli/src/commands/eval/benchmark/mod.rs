//! `eval --benchmark`: a model's answers to a public benchmark, and what they score.

mod answers;
mod ask;

use std::path::{Path, PathBuf};

use clap::Args;
use tg_llava_core::preprocess::AspectRatio;
use tg_llava_train::checkpoint::{Fingerprint, hash_bytes};

use self::answers::AnswerFile;
use self::ask::{Asking, Limits};
use super::EvalArgs;
use crate::benchmark::output::{Summary, data_set, write};
use crate::benchmark::questions::Questions;
use crate::benchmark::scoring::{Places, Scoring};
use crate::benchmark::{Harness, ScoringArgs, is_table, read};
use crate::checkpoint::Folders;
use crate::console::Console;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// Arguments that benchmarks alone have.
#[derive(Debug, Args)]
#[command(next_help_heading = "Benchmark")]
pub struct BenchmarkArgs {
    /// Folder of answers, verdicts and scores; the same command goes on there [default: results/NAME]
    #[arg(long, value_name = "DIR", conflicts_with = "predictions")]
    pub output: Option<PathBuf>,
    /// Memory for keys and values of the answers at work, in MiB; further questions wait [default: no limit]
    #[arg(long, value_name = "MIB")]
    pub cache_mib: Option<u64>,
    /// How answers are scored.
    #[command(flatten)]
    pub scoring: ScoringArgs,
}

impl BenchmarkArgs {
    /// Whether a benchmark is to be answered, and not a LLaVA file.
    pub fn is_meant(&self, data: &Path) -> bool {
        let ScoringArgs { benchmark, harness, annotations, .. } = &self.scoring;
        let asked = benchmark.is_some() || harness.is_some() || !annotations.is_empty();
        asked || self.output.is_some() || is_table(data)
    }
}

/// Answers and scores the benchmark.
pub fn run(args: &EvalArgs, folders: &Folders, console: &Console) -> Result<(), Failure> {
    let interrupt = Interrupt::install();
    let own = &args.benchmark;
    let (name, harness) = (own.scoring.name(&args.data)?, own.scoring.harness(&args.data));
    let text = read(&args.data)?;
    let questions = Questions::new(&text, &args.data, &name, harness)?;
    own.scoring.check(&questions)?;
    questions.need_pictures()?;
    if let Some(reason) = own.scoring.foresee(&questions, &args.data)? {
        console.warn(format_args!("answers will not be scored: {reason}"));
    }
    let output = own.output.clone().unwrap_or_else(|| Path::new("results").join(&name));
    // Before the model is loaded, which may take long.
    let folder = std::fs::create_dir_all(&output);
    folder.map_err(|error| Failure::input(format_args!("--output {}: {error}", output.display())))?;
    let max_new_tokens = args.max_new_tokens.unwrap_or_else(|| questions.max_new_tokens());
    let (assistant, opened) = super::load(args, folders, console)?;
    let mut fingerprint: Fingerprint = [
        ("benchmark", name.clone()),
        ("harness", harness.name().to_owned()),
        ("contents of --data", hash_bytes(text.as_bytes())),
        ("model", answers::model_digest(folders)?),
        ("template", assistant.template.name.to_owned()),
        ("device", opened.spec.to_string()),
        ("dtype", args.quantize.number_format(&opened, &assistant.report.quantised)),
        ("longest answer", max_new_tokens.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if let Some(beams) = args.beams() {
        fingerprint.insert("beams".to_owned(), beams.num_beams.to_string());
    }
    if let Some(pictures) = &args.image_folder {
        let pictures = std::fs::canonicalize(pictures).unwrap_or_else(|_| pictures.clone());
        fingerprint.insert("--image-folder".to_owned(), pictures.display().to_string());
    }
    let mut file = AnswerFile::open(&output, &fingerprint, &questions, args.force)?;
    let order = questions.order();
    let wanted = args.samples.unwrap_or(order.len()).min(order.len());
    let open: Vec<usize> =
        order[..wanted].iter().copied().filter(|&row| !file.has(&questions.index(row))).collect();
    if open.len() < wanted {
        let (done, path) = (wanted - open.len(), file.path().display());
        console.note(format_args!("{done} of {wanted} answers are in {path} already"));
    }
    let mut encoder = super::encoder(args, &assistant)?;
    if harness == Harness::Vlmevalkit {
        // Its wrapper pads, whatever the checkpoint says.
        encoder.options.aspect = AspectRatio::Pad;
    }
    // Until all are answered, Ctrl-C ends with what is written.
    let busy = interrupt.busy();
    let asking = Asking {
        assistant: &assistant,
        encoder: &encoder,
        questions: &questions,
        limits: Limits {
            max_new_tokens,
            beams: args.beams(),
            batch: args.batch_size,
            cache_mib: own.cache_mib,
        },
        busy: &busy,
    };
    let bar = Progress::items(console, "answering", "questions", open.len());
    let mut failures = Vec::new();
    asking.all(&open, &mut |row, answer| {
        match answer {
            Ok(answer) => file.write(&questions, row, &answer)?,
            Err(reason) => failures.push(format!("{}: {reason}", questions.place(row))),
        }
        bar.advance(1);
        Ok(())
    })?;
    drop((bar, busy));
    file.sort(&questions)?;
    let found = |row: usize| file.answers().get(&questions.index(row)).map(String::as_str);
    let table = questions.predicted(found);
    let files = table.map(|table| write(&output, &data_set(&name), &table)).transpose()?;
    let answers = questions.answers(file.path(), found);
    let scoring = if wanted == order.len() {
        let places = Places { data: &args.data, replies: &output };
        match own.scoring.score(&questions, &answers, places, console) {
            // There are answers; that there is nothing to score them with does not take them away.
            Err(error) if error.leaves_answers() => {
                own.scoring.not_scored(error, &questions, &answers, &args.data)?
            }
            scoring => scoring?,
        }
    } else {
        // A server takes answers to all questions alone.
        let state = "not scored, since only a part was asked".to_owned();
        Scoring { state, report: None, uploads: Vec::new() }
    };
    let summary = Summary {
        name: &name,
        harness,
        rules: own.scoring.rules,
        output: Some(&output),
        answered: file.answers().len(),
        failures: &failures,
        scoring,
    };
    summary.finish(files.into_iter().collect(), console)?;
    if failures.is_empty() { Ok(()) } else { Err(Failure::Check) }
}
