//! `data check`: whether everything is there that a run will want, before it begins.

mod args;
mod pictures;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tg_llava_train::data::{DataError, LlavaDataset, OnBadSample};

pub use args::CheckArgs;

use self::pictures::{Listed, Looking, Tallies, Trouble};
use crate::console::{Console, print, print_json};
use crate::failure::Failure;
use crate::progress::Progress;

/// How many problems of a file are told.
const SHOWN: usize = 20;

/// What a data file holds.
#[derive(Debug, Serialize)]
struct FileReport {
    path: PathBuf,
    samples: usize,
    with_pictures: usize,
    /// Samples that cannot be used, or one that the file itself is damaged.
    problems: usize,
    /// The first of them.
    first_problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    complete: bool,
    files: Vec<FileReport>,
    /// Different pictures, and those of them that a run can use.
    pictures: usize,
    present: usize,
    folders: Tallies,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where a file cannot be opened or there is no such folder, [`Failure::Check`] where something is not complete.
pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let report = check(args, &console)?;
    if console.json {
        print_json(&report, true)?
    } else {
        print(&text(&report))?
    }
    if report.complete { Ok(()) } else { Err(Failure::Check) }
}

fn check(args: &CheckArgs, console: &Console) -> Result<Report, Failure> {
    if !args.image_folder.is_dir() {
        let folder = args.image_folder.display();
        return Err(Failure::input(format_args!("--image-folder {folder}: no such folder")));
    }
    let (mut files, mut names) = (Vec::new(), BTreeSet::new());
    for path in &args.data {
        let spinner = Progress::spinner(console, &format!("reading {}", path.display()));
        files.push(read(path, &mut names)?);
        drop(spinner);
    }
    let names: Vec<String> = names.into_iter().collect();
    let looking = Looking {
        folder: &args.image_folder,
        allow_outside: args.allow_outside,
        decode: args.decode.then(|| args.pictures.decode_options()),
    };
    let bar =
        Progress::items(console, if args.decode { "decoding" } else { "looking" }, "pictures", names.len());
    let folders = looking.at(&names, || bar.advance(1));
    drop(bar);
    let present = folders.values().map(|tally| tally.present).sum();
    let complete = present == names.len() && files.iter().all(|file| file.problems == 0);
    Ok(Report { complete, files, pictures: names.len(), present, folders })
}

/// Reads a data file and adds the pictures that it names to `names`.
fn read(path: &Path, names: &mut BTreeSet<String>) -> Result<FileReport, Failure> {
    let mut report = FileReport {
        path: path.into(),
        samples: 0,
        with_pictures: 0,
        problems: 0,
        first_problems: Vec::new(),
    };
    let data = match LlavaDataset::open(path, OnBadSample::Skip) {
        Ok(data) => data,
        Err(error @ DataError::Io { .. }) => return Err(Failure::Input(error.into())),
        // A file that is cut short is what this command is asked about.
        Err(error) => {
            report.add(&error);
            return Ok(report);
        }
    };
    report.samples = data.len();
    data.rejected().iter().for_each(|error| report.add(error));
    for index in (0..data.len()).filter(|&index| data.has_image(index)) {
        report.with_pictures += 1;
        let sample = data.sample(index).map_err(|error| Failure::Input(error.into()))?;
        names.extend(sample.images);
    }
    Ok(report)
}

impl FileReport {
    fn add(&mut self, error: &DataError) {
        self.problems += 1;
        if self.first_problems.len() < SHOWN {
            self.first_problems.push(error.to_string());
        }
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for FileReport { path, samples, with_pictures, problems, first_problems } in &report.files {
        text += &format!(
            "{}: {samples} samples, {with_pictures} of them with pictures; {problems} that cannot be used\n",
            path.display()
        );
        first_problems.iter().for_each(|problem| text += &format!("        {problem}\n"));
        if first_problems.len() < *problems {
            text += &format!("        ... and {} more\n", problems - first_problems.len());
        }
    }
    for (folder, tally) in &report.folders {
        text += &format!("{folder:<16}{:>9} of {} pictures\n", tally.present, tally.named);
        for (trouble, Listed { count, first }) in &tally.troubles {
            let names: Vec<&str> = first.iter().map(String::as_str).collect();
            let more = if *count > names.len() { ", ..." } else { "" };
            text += &format!("        {count} {}: {}{more}\n", words(*trouble), names.join(", "));
            if let Some(hint) = hint(*trouble, folder) {
                text += &format!("        {hint}\n");
            }
        }
    }
    let state = if report.complete { "complete" } else { "NOT complete" };
    text + &format!("{state}: {} of {} pictures\n", report.present, report.pictures)
}

fn words(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Missing => "missing",
        Trouble::OtherEnding => "with another ending than the data has",
        Trouble::Outside => "outside the image folder",
        Trouble::Empty => "empty",
        Trouble::Damaged => "damaged",
    }
}

fn hint(trouble: Trouble, folder: &str) -> Option<&'static str> {
    match trouble {
        Trouble::OtherEnding if folder == "ocr_vqa" => Some(
            "LLaVA's mixture names all pictures of ocr_vqa .jpg, whatever they are; rename them, their format is found by content",
        ),
        Trouble::OtherEnding => Some("rename them; their format is found by content"),
        Trouble::Outside => {
            Some("a run takes them with data.allow_outside = true; --allow-outside checks for that")
        }
        Trouble::Empty => Some("a download was cut short; fetch them again"),
        Trouble::Missing | Trouble::Damaged => None,
    }
}
