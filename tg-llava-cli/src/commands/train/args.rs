use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use tg_llava_core::config::LLM_PRESETS;
use tg_llava_train::config::Stage;
use tg_llava_train::parallel::World;

use super::simulate;
use crate::args::OutputArgs;
use crate::device::ComputeArgs;

/// Arguments of `train`.
#[derive(Debug, Clone, Args)]
#[command(after_help = FLAGS_HELP)]
pub struct TrainArgs {
    /// The run, a TOML file; examples/runs has one for each stage
    #[arg(long, value_name = "FILE", conflicts_with = "llava_flags")]
    pub config: Option<PathBuf>,
    /// Set one key of the run, such as optim.lr=2e-5; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub assignments: Vec<String>,
    /// Check all samples, show labels, lengths, parameters, schedule and a forecast of memory and time, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: forecast memory and time for a decoder of these published sizes, without weights or data
    #[arg(long, value_name = "NAME", requires = "dry_run", value_parser = PossibleValuesParser::new(LLM_PRESETS))]
    pub preset: Option<String>,
    /// With --preset, where nothing else describes the run: its stage [default: finetune]
    #[arg(long, value_name = "STAGE", requires = "preset", conflicts_with_all = ["config", "llava_flags"])]
    pub stage: Option<StageArg>,
    /// Begin anew where output_dir holds checkpoints; without it, the run goes on from the last one
    #[arg(long)]
    pub restart: bool,
    /// Print plain lines on a terminal too
    #[arg(long)]
    pub plain: bool,
    /// Train with N ranks on this machine, a GPU each; without N, as many as it has GPUs
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "all", value_parser = Nproc::parse)]
    pub nproc: Option<Nproc>,
    /// Do what rank R of N does, of which LOCAL share a machine, on one device: tells memory, times and traffic, saves nothing
    #[arg(long, value_name = "R/N[xLOCAL]", value_parser = simulate::parse, conflicts_with = "nproc")]
    pub simulate: Option<World>,
    /// Device and number format.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
    /// LLaVA's own flags, as its scripts have them, behind all others
    #[arg(value_name = "LLAVA FLAGS", allow_hyphen_values = true, trailing_var_arg = true, num_args = 0..)]
    pub llava_flags: Vec<String>,
}

/// `--stage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StageArg {
    Pretrain,
    Finetune,
}

impl From<StageArg> for Stage {
    fn from(stage: StageArg) -> Self {
        match stage {
            StageArg::Pretrain => Self::Pretrain,
            StageArg::Finetune => Self::Finetune,
        }
    }
}

const FLAGS_HELP: &str = "\
Without --config, LLaVA's flags describe the run: train --model_name_or_path vicuna-7b --version v1 --data_path \
data.json --image_folder images --vision_tower clip-vit-large-patch14-336 --output_dir out. Ctrl-C ends the run \
after the step under way and saves it; the same command goes on from there. Under torchrun, srun and mpirun, each \
process is a rank.";

/// How many ranks `--nproc` starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nproc {
    /// One for each device.
    All,
    /// This many.
    Count(usize),
}

/// More ranks than any machine has devices for.
const MOST: usize = 1024;

impl Nproc {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
        count.map(Self::Count).ok_or_else(|| {
            format!("it must be a whole number from 1 to {MOST}, or nothing with another option behind it")
        })
    }
}
