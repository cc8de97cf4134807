//! `data`: training data from public data sets, small tokenizers for them, and whether a data set is complete.

mod args;
mod check;
mod easy_vqa;
mod tokenizers;

pub use args::{DataArgs, DataCommand, EasyVqaArgs, QuestionsArg, TokenizersArgs};
pub use check::CheckArgs;

use crate::prepare::PrepareError;

use crate::failure::Failure;

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where the input cannot be used, [`Failure::Run`] where the output cannot be written, [`Failure::Check`] where a
/// data set is not complete.
pub fn run(args: &DataArgs) -> Result<(), Failure> {
    match &args.command {
        DataCommand::EasyVqa(args) => easy_vqa::run(args),
        DataCommand::Tokenizers(args) => tokenizers::run(args),
        DataCommand::Check(args) => check::run(args),
    }
}

/// What the shell is told; the library's options go by their flags' names.
fn failure(error: PrepareError) -> Failure {
    match error {
        PrepareError::Write { .. } | PrepareError::Tokenizer { .. } => Failure::Run(error.into()),
        PrepareError::NotEmpty { path, entries } => Failure::input(format_args!(
            "{}: the folder is not empty; name another one, or give --force to replace {entries} there",
            path.display()
        )),
        PrepareError::VocabularyTooSmall { which, .. } => {
            let flag = if which == "guide" { "--guide-vocab-size" } else { "--vocab-size" };
            Failure::input(format_args!("{flag}: {error}"))
        }
        other => Failure::Input(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        data: DataArgs,
    }

    /// The exit code and the message.
    fn outcome(arguments: &[&str]) -> (u8, String) {
        let line = Line::try_parse_from(["data"].iter().chain(arguments)).unwrap();
        let failure = run(&line.data).unwrap_err();
        (failure.exit_code(), failure.message().unwrap())
    }

    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    #[test]
    fn without_a_package_it_is_said_how_to_get_it() {
        let (code, message) = outcome(&["easy-vqa", "--out", "never"]);
        assert_eq!(code, 2);
        assert!(message.contains("pip download easy-vqa==1.0 --no-deps"), "{message}");
    }

    #[test]
    fn wrong_input_exits_with_2_and_names_the_file_or_flag() {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("a.whl"), dir.path().join("out"));
        std::fs::write(&file, "text").unwrap();
        for (arguments, expected) in [
            (vec!["easy-vqa", text(&file), "--out", text(&out)], "a.whl: not the easy-vqa package"),
            (vec!["easy-vqa", "no.whl", "--out", text(&out)], "no.whl: "),
            (vec!["tokenizers", "--data", text(&file), "--out", text(&out)], "a.whl, line 1: found `t`"),
            (
                vec!["tokenizers", "--data", "x", "--out", text(&out), "--guide-vocab-size", "9"],
                "--guide-vocab-size: a vocabulary of 9",
            ),
            (
                vec!["tokenizers", "--data", text(&file), "--out", text(dir.path())],
                "give --force to replace decoder",
            ),
        ] {
            let (code, message) = outcome(&arguments);
            assert!(code == 2 && message.contains(expected), "{code} {message}");
            assert!(!out.exists());
        }
    }

    #[test]
    fn output_that_cannot_be_written_exits_with_1() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let (code, message) = outcome(&["tokenizers", "--data", "x", "--out", text(&file.join("out"))]);
        assert!(code == 1 && message.contains("cannot be written"), "{code} {message}");
    }
}
