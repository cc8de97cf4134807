//! `data tokenizers`: small tokenizers from the texts of training data.

use crate::prepare::{DECODER_FOLDER, GUIDE_FOLDER, TokenizerOptions, TokenizerSummary, prepare_tokenizers};

use super::args::{TokenizersArgs, existing};
use super::failure;
use crate::console::{Console, print, print_json};
use crate::failure::Failure;
use crate::progress::Progress;

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where the data cannot be used, [`Failure::Run`] where the output cannot be written.
pub(super) fn run(args: &TokenizersArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let options = TokenizerOptions {
        vocab_size: args.vocab_size,
        guide_vocab_size: args.guide_vocab_size,
        template: args.template,
        existing: existing(args.force),
    };
    let spinner = Progress::spinner(&console, "training tokenizers");
    let summary = prepare_tokenizers(&args.data, &args.out, &options).map_err(failure)?;
    drop(spinner);
    for (made, asked, what) in [
        (summary.vocab_size, args.vocab_size, "decoder"),
        (summary.guide_vocab_size, args.guide_vocab_size, "guide"),
    ] {
        if made < asked {
            console.note(format_args!(
                "the {what} has {made} tokens, not {asked}: with these every word of the data is one token"
            ));
        }
    }
    if console.json { print_json(&summary, true) } else { print(&text(&summary)) }
}

fn text(summary: &TokenizerSummary) -> String {
    let TokenizerSummary { out, samples, vocab_size, guide_vocab_size } = summary;
    let folder = |name| out.join(name).display().to_string();
    format!(
        "samples {samples}\ndecoder {vocab_size} tokens: {}\nguide   {guide_vocab_size} tokens: {}\n",
        folder(DECODER_FOLDER),
        folder(GUIDE_FOLDER),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_both_folders() {
        let summary =
            TokenizerSummary { out: "out".into(), samples: 3, vocab_size: 300, guide_vocab_size: 400 };
        let text = text(&summary).replace('\\', "/");
        assert_eq!(text, "samples 3\ndecoder 300 tokens: out/decoder\nguide   400 tokens: out/guide\n");
    }
}
