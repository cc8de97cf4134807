//! `data easy-vqa`: the Python package easy-vqa as LLaVA data.

use std::cmp::Reverse;

use crate::prepare::{EasyVqaOptions, EasyVqaSummary, SplitSummary, prepare_easy_vqa};

use super::args::{EASY_VQA_HELP, EasyVqaArgs, existing};
use super::failure;
use crate::console::{Console, print, print_json};
use crate::failure::Failure;
use crate::progress::Progress;

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] without a usable package, [`Failure::Run`] where the output cannot be written.
pub(super) fn run(args: &EasyVqaArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let Some(package) = &args.package else {
        let message = format!("no package given: add the path of its wheel\n{EASY_VQA_HELP}");
        return Err(Failure::input(message));
    };
    let options = EasyVqaOptions {
        questions_per_sample: args.questions_per_sample.0,
        copies: args.copies,
        curriculum: args.curriculum,
        limit: args.limit,
        existing: existing(args.force),
    };
    let spinner = Progress::spinner(&console, "preparing easy-VQA");
    let summary = prepare_easy_vqa(package, &args.out, &options).map_err(failure)?;
    drop(spinner);
    if console.json { print_json(&summary, true) } else { print(&text(&summary)) }
}

fn text(summary: &EasyVqaSummary) -> String {
    let split = |name: &str, split: &SplitSummary| {
        let SplitSummary { samples, questions, pictures, files } = split;
        let copies = if files == pictures { String::new() } else { format!(" ({files} with copies)") };
        format!("{name:<11}{samples} samples, {questions} questions, {pictures} pictures{copies}\n")
    };
    let mut answers: Vec<_> = summary.answers.iter().collect();
    answers.sort_by_key(|&(answer, &count)| (Reverse(count), answer));
    let answers: Vec<_> = answers.into_iter().map(|(answer, count)| format!("{answer} {count}")).collect();
    let out = summary.out.display();
    let (curriculum, file) = match summary.curriculum {
        Some(samples) => (format!("curriculum {samples} samples\n"), "curriculum.json, "),
        None => Default::default(),
    };
    format!(
        "{}{}{curriculum}answers {}: {}\nwritten {out}: train.json, test.json, {file}images, LICENSE\n",
        split("train", &summary.train),
        split("test", &summary.test),
        answers.len(),
        answers.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_and_sorts() {
        let train = SplitSummary { samples: 4, questions: 8, pictures: 2, files: 4 };
        let test = SplitSummary { samples: 1, questions: 1, pictures: 1, files: 1 };
        let answers = [("blue", 1), ("no", 2), ("yes", 2)].map(|(answer, count)| (answer.into(), count));
        let mut summary =
            EasyVqaSummary { out: "out".into(), train, test, curriculum: None, answers: answers.into() };
        assert_eq!(
            text(&summary),
            "train      4 samples, 8 questions, 2 pictures (4 with copies)\n\
             test       1 samples, 1 questions, 1 pictures\n\
             answers 3: no 2, yes 2, blue 1\n\
             written out: train.json, test.json, images, LICENSE\n"
        );
        summary.curriculum = Some(60);
        let text = text(&summary);
        assert!(text.contains("pictures\ncurriculum 60 samples\nanswers 3"), "{text}");
        assert!(text.contains("test.json, curriculum.json, images"), "{text}");
    }
}
