//! What can be typed behind `data`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use crate::prepare::{Copies, Existing, QuestionsPerSample};
use clap::{Args, Subcommand};
use tg_llava_core::conversation::Template;

use super::CheckArgs;
use crate::args::OutputArgs;

/// Arguments of `data`.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// What to prepare or check.
    #[command(subcommand)]
    pub command: DataCommand,
}

/// What to prepare or check.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Turn the data set easy-VQA, a Python package, into train.json, test.json and images/
    EasyVqa(EasyVqaArgs),
    /// Train small tokenizers on a LLaVA JSON file, for a model that is trained from scratch
    Tokenizers(TokenizersArgs),
    /// Check that a data set is complete: every sample readable, every picture there; exit code 1 where not
    Check(CheckArgs),
}

/// Arguments of `data easy-vqa`.
#[derive(Debug, Args)]
#[command(after_help = EASY_VQA_HELP)]
pub struct EasyVqaArgs {
    /// The package's wheel, or the folder it was unpacked to
    #[arg(value_name = "WHEEL|DIR")]
    pub package: Option<PathBuf>,
    /// Folder to create
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Questions about one picture in one training sample, a turn each, or `all`; test samples have one
    #[arg(long, value_name = "K", default_value_t = QuestionsArg(QuestionsPerSample::ONE))]
    pub questions_per_sample: QuestionsArg,
    /// Variants of each training picture, 1 to 64, each with all the questions: itself, and others with the shape
    /// shifted and half of them mirrored
    #[arg(long, value_name = "N", default_value = "1", value_parser = copies)]
    pub copies: Copies,
    /// Write curriculum.json too: N training samples in learning order (shapes, then colours, then everything), for
    /// a model that is trained from scratch; train on it for one epoch with order = "sequential"
    #[arg(long, value_name = "N")]
    pub curriculum: Option<NonZeroUsize>,
    /// Take the first N pictures of each split only
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroUsize>,
    /// Replace train.json, test.json, curriculum.json, images and LICENSE where DIR has them
    #[arg(long)]
    pub force: bool,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How to get the package.
pub(super) const EASY_VQA_HELP: &str = "\
`pip download easy-vqa==1.0 --no-deps` gets the wheel easy_vqa-1.0-py3-none-any.whl from PyPI (5 MB, MIT licence); a \
browser does as well: https://pypi.org/project/easy-vqa/#files";

/// Arguments of `data tokenizers`.
#[derive(Debug, Args)]
pub struct TokenizersArgs {
    /// LLaVA JSON or JSON-lines file whose texts are learned from
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Folder to create; the tokenizers go to its folders decoder and guide
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Most tokens of the decoder's tokenizer, at least 259
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub vocab_size: usize,
    /// Most tokens of the guide's tokenizer, at least 373
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub guide_vocab_size: usize,
    /// Conversation template that the decoder will be trained with
    #[arg(long, value_name = "NAME", default_value = "vicuna_v1", value_parser = template)]
    pub template: &'static Template,
    /// Replace decoder and guide where DIR has them
    #[arg(long)]
    pub force: bool,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `--questions-per-sample`: a number or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuestionsArg(pub QuestionsPerSample);

/// What `--force` means.
pub(super) fn existing(force: bool) -> Existing {
    if force { Existing::Replace } else { Existing::Refuse }
}

impl FromStr for QuestionsArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(QuestionsPerSample::All));
        }
        let count = text.parse().map_err(|_| "it must be a whole number of at least 1, or `all`")?;
        Ok(Self(QuestionsPerSample::UpTo(count)))
    }
}

impl std::fmt::Display for QuestionsArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            QuestionsPerSample::UpTo(count) => write!(f, "{count}"),
            QuestionsPerSample::All => f.write_str("all"),
        }
    }
}

fn copies(text: &str) -> Result<Copies, String> {
    let count = text.parse().ok().and_then(Copies::new);
    count.ok_or_else(|| format!("it must be a whole number from 1 to {}", Copies::MOST))
}

fn template(name: &str) -> Result<&'static Template, String> {
    Template::by_name(name).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use crate::prepare::{least_decoder_vocabulary, least_guide_vocabulary};
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        data: DataArgs,
    }

    fn easy_vqa(arguments: &[&str]) -> Result<EasyVqaArgs, String> {
        let line = ["data", "easy-vqa", "--out", "out"].iter().chain(arguments);
        match Line::try_parse_from(line).map_err(|e| e.to_string())?.data.command {
            DataCommand::EasyVqa(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_are_checked() {
        let args =
            easy_vqa(&["a.whl", "--questions-per-sample", "all", "--copies", "8", "--limit", "3"]).unwrap();
        assert_eq!(args.questions_per_sample, QuestionsArg(QuestionsPerSample::All));
        assert_eq!((args.copies.count(), args.limit.map(NonZeroUsize::get)), (8, Some(3)));
        let args = easy_vqa(&["--copies", "64", "--curriculum", "160000"]).unwrap();
        assert_eq!((args.copies.count(), args.curriculum.map(NonZeroUsize::get)), (64, Some(160_000)));
        let args = easy_vqa(&[]).unwrap();
        assert_eq!(args.questions_per_sample.0, QuestionsPerSample::ONE);
        assert_eq!((args.copies, args.curriculum, args.package), (Copies::ONE, None, None));
        for wrong in [
            ["--copies", "0"],
            ["--copies", "65"],
            ["--curriculum", "0"],
            ["--questions-per-sample", "0"],
            ["--limit", "0"],
        ] {
            let error = easy_vqa(&wrong).unwrap_err();
            assert!(error.contains(wrong[0]), "{error}");
        }
    }

    /// The help names numbers that follow from the library.
    #[test]
    fn the_least_vocabularies_are_those_of_the_help() {
        assert_eq!((least_decoder_vocabulary(), least_guide_vocabulary()), (259, 373));
    }
}
