use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use tg_llava_core::config::LLM_PRESETS;
use tg_llava_train::config::Stage;

use crate::args::OutputArgs;
use crate::device::ComputeArgs;

/// Arguments of `train`.
#[derive(Debug, Args)]
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
    /// Stage 1: the bridges learn
    Pretrain,
    /// Stage 2: bridges and decoder learn
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
after the step under way and saves it; the same command goes on from there.";
