//! Public benchmarks: what is asked, what answers are worth, and the files of both. Shared by `eval` and `score`.

pub mod judge;
pub mod lines;
pub mod output;
pub mod questions;
pub mod scoring;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use tg_llava_benchmarks::llava::Benchmark;
use tg_llava_benchmarks::score::option::Rules;

use self::judge::JudgeArgs;
use crate::failure::Failure;

/// How answers are scored.
#[derive(Debug, Args)]
#[command(next_help_heading = "Benchmark")]
pub struct ScoringArgs {
    /// Name of the benchmark, such as MMBench_DEV_EN or POPE [default: as the file of --data is called]
    #[arg(long, value_name = "NAME")]
    pub benchmark: Option<String>,
    /// Whose prompts, files and scores: VLMEvalKit's with its wrapper of LLaVA, or LLaVA-1.5's scripts [default: vlmevalkit for
    /// a .tsv file, else llava]
    #[arg(long, value_enum)]
    pub harness: Option<Harness>,
    /// With --harness llava: the files of right answers, or folders with them [default: beside --data]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub annotations: Vec<PathBuf>,
    /// By whose rules options are read out of answers
    #[arg(long, value_enum, default_value_t = RulesArg::Current)]
    pub rules: RulesArg,
    /// Another model that judges.
    #[command(flatten)]
    pub judge: JudgeArgs,
}

/// Whose evaluation is reproduced. The values have no help of their own, which would repeat the option's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the values' help would repeat the option's")]
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

/// `--rules`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the values' help would repeat the option's")]
pub enum RulesArg {
    Current,
    #[value(name = "2024")]
    Of2024,
}

impl RulesArg {
    /// The name that `--rules` has for them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Of2024 => "2024",
        }
    }
}

impl From<RulesArg> for Rules {
    fn from(value: RulesArg) -> Self {
        match value {
            RulesArg::Current => Self::Current,
            RulesArg::Of2024 => Self::Of2024,
        }
    }
}

impl ScoringArgs {
    /// Whose evaluation of the file `data` is meant.
    pub fn harness(&self, data: &Path) -> Harness {
        let default = if is_table(data) { Harness::Vlmevalkit } else { Harness::Llava };
        self.harness.unwrap_or(default)
    }

    /// The benchmark's name.
    ///
    /// # Errors
    /// [`Failure::Input`] where neither an option nor the file `data` tells it, and where an option names none that LLaVA's scripts know.
    pub fn name(&self, data: &Path) -> Result<String, Failure> {
        if let Some(name) = &self.benchmark
            && self.harness(data) == Harness::Llava
            && Benchmark::of(name).is_none()
        {
            return Err(Failure::input(format_args!(
                "--benchmark {name}: LLaVA's scripts know {}; --harness vlmevalkit has others",
                Benchmark::CALLED.join(", ")
            )));
        }
        let stem = || data.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = self.benchmark.clone().or_else(stem);
        name.ok_or_else(|| Failure::input("no benchmark named; add --benchmark"))
    }
}

/// Whether a file is a table, as VLMEvalKit's data sets are.
pub fn is_table(data: &Path) -> bool {
    data.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"))
}

/// A file's text.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::input(format_args!("{}: {error}", path.display())))
}

/// A mistake in what the user gave.
pub(crate) fn input(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Input(error.into())
}
