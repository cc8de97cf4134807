//! `eval --benchmark`: a model's answers to a public benchmark, and what they score.

mod answers;
mod ask;
mod output;
mod questions;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use tg_llava_core::preprocess::AspectRatio;
use tg_llava_train::checkpoint::{Fingerprint, hash_bytes};

use self::answers::AnswerFile;
use self::ask::Asking;
use self::output::Summary;
use self::questions::Questions;
use super::EvalArgs;
use crate::checkpoint::Folders;
use crate::commands::score::RulesArg;
use crate::console::Console;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::judge::JudgeArgs;
use crate::progress::Progress;

/// Arguments that benchmarks alone have.
#[derive(Debug, Args)]
#[command(next_help_heading = "Benchmark")]
pub struct BenchmarkArgs {
    /// Name of the benchmark's data set, such as MMBench_DEV_EN [default: as a .tsv file of --data is called]
    #[arg(long, value_name = "NAME")]
    pub benchmark: Option<String>,
    /// Whose prompts and files: VLMEvalKit's wrapper of LLaVA, or LLaVA-1.5's scripts [default: vlmevalkit for a .tsv file,
    /// else llava]
    #[arg(long, value_enum)]
    pub harness: Option<Harness>,
    /// Folder of answers, verdicts and scores; the same command goes on there [default: results/NAME]
    #[arg(long, value_name = "DIR", conflicts_with = "predictions")]
    pub output: Option<PathBuf>,
    /// By whose rules options are read out of answers
    #[arg(long, value_enum, default_value_t = RulesArg::Current)]
    pub rules: RulesArg,
    /// Memory for keys and values of the answers at work, in MiB; further questions wait [default: no limit]
    #[arg(long, value_name = "MIB")]
    pub cache_mib: Option<u64>,
    /// Another model that judges.
    #[command(flatten)]
    pub judge: JudgeArgs,
}

/// Whose evaluation is reproduced. The values have no help of their own, which would repeat the option's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Harness {
    Vlmevalkit,
    Llava,
}

impl Harness {
    /// The name that `--harness` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vlmevalkit => "vlmevalkit",
            Self::Llava => "llava",
        }
    }
}

impl BenchmarkArgs {
    /// Whether a benchmark is to be answered, and not a LLaVA file.
    pub fn is_meant(&self, data: &Path) -> bool {
        let asked = self.benchmark.is_some() || self.harness.is_some() || self.output.is_some();
        asked || is_table(data)
    }

    fn harness(&self, data: &Path) -> Harness {
        let default = if is_table(data) { Harness::Vlmevalkit } else { Harness::Llava };
        self.harness.unwrap_or(default)
    }

    fn name(&self, data: &Path) -> Result<String, Failure> {
        let stem = || data.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = self.benchmark.clone().or_else(stem);
        name.ok_or_else(|| Failure::input("no benchmark named; add --benchmark"))
    }
}

fn is_table(data: &Path) -> bool {
    data.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"))
}

/// Answers and scores the benchmark.
pub fn run(args: &EvalArgs, folders: &Folders, console: &Console) -> Result<(), Failure> {
    let interrupt = Interrupt::install();
    let own = &args.benchmark;
    let (name, harness) = (own.name(&args.data)?, own.harness(&args.data));
    let text = read(&args.data)?;
    let questions = Questions::new(&text, &args.data, &name, harness)?;
    let output = own.output.clone().unwrap_or_else(|| Path::new("results").join(&name));
    // Before the model is loaded, which may take long.
    let folder = std::fs::create_dir_all(&output);
    folder.map_err(|error| Failure::input(format_args!("--output {}: {error}", output.display())))?;
    let max_new_tokens = args.max_new_tokens.unwrap_or_else(|| questions.max_new_tokens(&name));
    let (assistant, opened) = super::load(args, folders, console)?;
    let fingerprint: Fingerprint = [
        ("benchmark", name.clone()),
        ("harness", harness.name().to_owned()),
        ("contents of --data", hash_bytes(text.as_bytes())),
        ("model", answers::model_digest(&folders.model, folders.base.as_deref())?),
        ("template", assistant.template.name.to_owned()),
        ("device", opened.spec.to_string()),
        ("dtype", opened.dtype.name().to_owned()),
        ("longest answer", max_new_tokens.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
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
        max_new_tokens,
        busy: &busy,
    };
    let bar = Progress::items(console, "answering", "questions", open.len());
    let mut failures = Vec::new();
    asking.all(&open, (args.batch_size, own.cache_mib), &mut |row, answer| {
        match answer {
            Ok(answer) => file.write(&questions, row, &answer)?,
            Err(reason) => failures.push(format!("{}: {reason}", questions.place(row))),
        }
        bar.advance(1);
        Ok(())
    })?;
    drop((bar, busy));
    let summary = Summary { name: &name, harness, output: &output, failures: &failures, wanted };
    summary.finish(&questions, file.answers(), own, console)?;
    if failures.is_empty() { Ok(()) } else { Err(Failure::Check) }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::input(format_args!("{}: {error}", path.display())))
}
