//! Groups of arguments that several commands take.

use std::path::Path;

use clap::{Args, ValueEnum};
use tg_llava_core::assistant::AssistantOptions;
use tg_llava_core::config::GuidePadding;
use tg_llava_core::conversation::GuideTurn;
use tg_llava_core::preprocess::{DecodeOptions, DetailSource};

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
    /// Search for the most probable answer as a whole, following N at once; it shows when it is complete
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one,
        conflicts_with_all = ["temperature", "top_k", "top_p"])]
    pub num_beams: usize,
    /// Of such answers, favour long ones (above 0) or short ones (below)
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        allow_negative_numbers = true,
        requires = "num_beams"
    )]
    pub length_penalty: f64,
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

impl GuideArgs {
    /// These as a checkpoint is loaded with them.
    pub fn assistant_options(&self, base: Option<&Path>, template: Option<&str>) -> AssistantOptions {
        AssistantOptions {
            base: base.map(Path::to_path_buf),
            template: template.map(str::to_owned),
            guide_turn: self.guide_turn.map(Into::into),
            guide_padding: self.guide_padding.map(Into::into),
            detail_source: self.detail_source.map(Into::into),
            ..AssistantOptions::default()
        }
    }
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

/// Largest size that the sums of sizes, bytes and operations are made for.
const LARGEST: usize = 1 << 24;

/// A number of things.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let value = text.parse().ok().filter(|value| (1..=LARGEST).contains(value));
    value.ok_or_else(|| format!("it must be a whole number from 1 to {LARGEST}"))
}
