//! What can be typed.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tg_llava_core::config::GuidePadding;
use tg_llava_core::conversation::{GuideTurn, Template};
use tg_llava_core::preprocess::{DecodeOptions, DetailSource};

use crate::commands::bench::BenchArgs;
use crate::commands::data::DataArgs;
use crate::commands::eval::EvalArgs;
use crate::commands::train::TrainArgs;
use crate::device::{DeviceSpec, Dtype};
use crate::parity::MODEL_GROUPS;
use crate::picture::PictureSource;

/// Ask about pictures, check numbers and inspect checkpoints with TG-LLaVA
#[derive(Debug, Parser)]
#[command(name = "tg-llava-cli", version, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a question about pictures, or hold a conversation where no PROMPT is given
    Chat(Box<ChatArgs>),
    /// Train a model on LLaVA data: stage 1 or stage 2, from a checkpoint or from scratch
    Train(Box<TrainArgs>),
    /// Answer all questions of a LLaVA file and count the answers that equal the expected ones
    Eval(EvalArgs),
    /// Turn public data sets into training data, and train small tokenizers on it
    Data(DataArgs),
    /// Compare this build's numbers with golden folders; exit code 1 on a difference
    Parity(ParityArgs),
    /// Measure speed on this machine, beside what the machine could do at best; prints JSON
    Bench(BenchArgs),
    /// Say what a checkpoint folder holds, without loading it; exit code 1 where it is not complete
    Inspect(InspectArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// How results and messages are printed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print results as JSON
    #[arg(long)]
    pub json: bool,
    /// Print no progress and no notes, only results, warnings and errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print details
    #[arg(short, long)]
    pub verbose: bool,
}

/// What the numbers are computed with.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Device")]
pub struct ComputeArgs {
    /// Where to compute: flex, ndarray, wgpu, vulkan, cuda or cuda:N [default: the best that works here]
    #[arg(long, value_name = "DEVICE", value_parser = DeviceSpec::parse)]
    pub device: Option<DeviceSpec>,
    /// Number format of weights and activations [default: f32; bf16 for chat on cuda]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<Dtype>,
}

/// Arguments of `chat`.
#[derive(Debug, Args)]
#[command(after_help = CONVERSATION_HELP)]
pub struct ChatArgs {
    /// The question; without it, a conversation begins (a question a line where input is piped)
    pub prompt: Option<String>,
    /// Checkpoint folder [default: the one in weights/]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Picture to show, a file or an http(s) address; may be repeated
    #[arg(long = "image", value_name = "PATH|URL",
        value_parser = OsStringValueParser::new().try_map(PictureSource::parse))]
    pub images: Vec<PictureSource>,
    /// Folder of the plain decoder, where --model holds stage-1 files alone
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Conversation template, for example vicuna_v1 [default: as the checkpoint says]
    #[arg(long, value_name = "NAME", value_parser = template_name)]
    pub template: Option<String>,
    /// How answers are generated.
    #[command(flatten)]
    pub generation: GenerationArgs,
    /// How questions guide the pictures.
    #[command(flatten)]
    pub guide: GuideArgs,
    /// How pictures are read.
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Device and number format.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

const CONVERSATION_HELP: &str = "\
In a conversation: /image PATH|URL shows a picture with the next question, /reset starts anew, /save FILE writes \
the turns as JSON, /help lists commands, /quit or Ctrl-D ends. Ctrl-C stops an answer.";

/// How answers are generated; what is not given is as the checkpoint's generation_config.json says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generation")]
pub struct GenerationArgs {
    /// Randomness: 0 takes the most probable token, 1 samples as the model predicts
    #[arg(long, value_name = "T", value_parser = not_negative, allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Sample from the K most probable tokens; 0 for all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample from the most probable tokens that make up this share, in (0, 1]
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Divide the scores of tokens that the answer holds already; 1 is off
    #[arg(long, value_name = "X", value_parser = positive, allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least_one)]
    pub max_new_tokens: usize,
    /// Start of the random numbers: equal seeds give equal answers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// How questions guide the pictures; what is not given is as the checkpoint says.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Guide")]
pub struct GuideArgs {
    /// Which question of a conversation guides what is seen in the pictures
    #[arg(long, value_enum, value_name = "WHICH")]
    pub guide_turn: Option<GuideTurnArg>,
    /// Whether guide texts see the padding of their batch, as the reference's do
    #[arg(long, value_enum, value_name = "HOW")]
    pub guide_padding: Option<GuidePaddingArg>,
    /// What the detail crops show: the picture scaled up, or its own pixels
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub detail_source: Option<DetailSourceArg>,
}

/// `--guide-turn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the values' help would repeat the option's")]
pub enum GuideTurnArg {
    Last,
    First,
    Joined,
}

/// `--guide-padding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the values' help would repeat the option's")]
pub enum GuidePaddingArg {
    Masked,
    Visible,
}

/// `--detail-source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the values' help would repeat the option's")]
pub enum DetailSourceArg {
    Upsampled,
    Native,
}

/// How pictures are read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pictures")]
pub struct PictureArgs {
    /// Turn pictures as their EXIF orientation says (the reference does not)
    #[arg(long)]
    pub apply_exif: bool,
    /// Refuse pictures of more pixels than this
    #[arg(long, value_name = "N", default_value_t = DecodeOptions::default().max_pixels)]
    pub max_image_pixels: u64,
    /// Refuse pictures of more bytes than this, in files and downloads
    #[arg(long, value_name = "N", default_value_t = DecodeOptions::default().max_bytes)]
    pub max_image_bytes: u64,
}

/// Arguments of `parity`.
#[derive(Debug, Args)]
pub struct ParityArgs {
    /// Golden folders; what is in them is recognised by their files
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Compare only these groups of model folders, separated by commas, and no other folders
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_parser = PossibleValuesParser::new(MODEL_GROUPS))]
    pub only: Vec<String>,
    /// Device and number format.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Checkpoint folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Folder of the plain decoder, where DIR holds stage-1 files alone
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Output format; `-v` lists every tensor.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

impl From<GuideTurnArg> for GuideTurn {
    fn from(value: GuideTurnArg) -> Self {
        match value {
            GuideTurnArg::Last => Self::Last,
            GuideTurnArg::First => Self::First,
            GuideTurnArg::Joined => Self::Joined,
        }
    }
}

impl From<GuidePaddingArg> for GuidePadding {
    fn from(value: GuidePaddingArg) -> Self {
        match value {
            GuidePaddingArg::Masked => Self::Masked,
            GuidePaddingArg::Visible => Self::Visible,
        }
    }
}

impl From<DetailSourceArg> for DetailSource {
    fn from(value: DetailSourceArg) -> Self {
        match value {
            DetailSourceArg::Upsampled => Self::Upsampled,
            DetailSourceArg::Native => Self::Native,
        }
    }
}

impl PictureArgs {
    /// The library's options.
    pub fn decode_options(&self) -> DecodeOptions {
        let defaults = DecodeOptions::default();
        DecodeOptions {
            apply_exif: self.apply_exif,
            max_pixels: self.max_image_pixels,
            max_bytes: self.max_image_bytes,
            // Four channels of 16 bits: whoever allows more pixels allows the memory to decode them.
            max_alloc: defaults.max_alloc.max(self.max_image_pixels.saturating_mul(8)),
            ..defaults
        }
    }
}

fn template_name(name: &str) -> Result<String, String> {
    Template::by_name(name).map(|template| template.name.to_owned()).map_err(|e| e.to_string())
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text).filter(|&value| value >= 0.0).ok_or_else(|| "it must be a number of at least 0".into())
}

fn positive(text: &str) -> Result<f64, String> {
    number(text).filter(|&value| value > 0.0).ok_or_else(|| "it must be a number above 0".into())
}

fn share(text: &str) -> Result<f64, String> {
    let value = number(text).filter(|&value| value > 0.0 && value <= 1.0);
    value.ok_or_else(|| "it must be a number above 0 and at most 1".into())
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|&value| value > 0)
        .ok_or_else(|| "it must be a whole number of at least 1".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ranges_are_checked() {
        let parse = |flag: &str, value: &str| Cli::try_parse_from(["tg-llava-cli", "chat", flag, value]);
        for (flag, good, bad) in [
            ("--temperature", "0", "-0.5"),
            ("--top-p", "1", "0"),
            ("--top-p", "0.1", "1.01"),
            ("--repetition-penalty", "1.1", "0"),
            ("--temperature", "1e-3", "inf"),
            ("--max-new-tokens", "1", "0"),
            ("--template", "vicuna_v1", "vicuna"),
        ] {
            assert!(parse(flag, good).is_ok(), "{flag} {good}");
            assert!(parse(flag, bad).is_err(), "{flag} {bad}");
        }
    }
}
