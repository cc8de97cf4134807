//! What can be typed.

use clap::{Parser, Subcommand};

use crate::commands::bench::BenchArgs;
use crate::commands::chat::ChatArgs;
use crate::commands::completions::CompletionsArgs;
use crate::commands::convert::ConvertArgs;
use crate::commands::data::DataArgs;
use crate::commands::eval::EvalArgs;
use crate::commands::fetch::FetchArgs;
use crate::commands::inspect::InspectArgs;
use crate::commands::merge::MergeArgs;
use crate::commands::parity::ParityArgs;
use crate::commands::report::ReportArgs;
use crate::commands::score::ScoreArgs;
use crate::commands::serve::ServeArgs;
use crate::commands::train::TrainArgs;

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
    /// Answer over HTTP as OpenAI's chat completions do, with a page to try it on
    Serve(Box<ServeArgs>),
    /// Train a model on LLaVA data: stage 1 or stage 2, from a checkpoint or from scratch
    Train(Box<TrainArgs>),
    /// Answer all questions of a LLaVA file and count the answers that equal the expected ones
    Eval(EvalArgs),
    /// Say what answers to a public benchmark are worth, without a model
    Score(ScoreArgs),
    /// Write an adapter and the decoder that it lies over as one checkpoint
    Merge(MergeArgs),
    /// Write a checkpoint anew: in another number format, or with its decoder in 8 or 4 bits
    Convert(ConvertArgs),
    /// Put the scores of several runs into one table
    Report(ReportArgs),
    /// Prepare training data, check that it is complete, and train small tokenizers on it
    Data(DataArgs),
    /// Compare this build's numbers with golden folders; exit code 1 on a difference
    Parity(ParityArgs),
    /// Measure speed on this machine, beside what the machine could do at best; prints JSON
    Bench(BenchArgs),
    /// Say what a checkpoint folder holds, without loading it; exit code 1 where it is not complete
    Inspect(InspectArgs),
    /// Bring models from Hugging Face to where they are found by name, and print their folders
    Fetch(FetchArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
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
