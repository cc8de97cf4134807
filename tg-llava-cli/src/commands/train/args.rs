use std::path::PathBuf;

use clap::Args;

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

const FLAGS_HELP: &str = "\
Without --config, LLaVA's flags describe the run: train --model_name_or_path vicuna-7b --version v1 --data_path \
data.json --image_folder images --vision_tower clip-vit-large-patch14-336 --output_dir out. Ctrl-C ends the run \
after the step under way and saves it; the same command goes on from there.";
