//! `eval` on public benchmarks, `score`, judges, `report`, and `parity` of recorded evaluations.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod judge;
mod llava;
mod parity;
mod refused;
mod report;
mod resume;
mod runs;
mod score;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{fixture, program};
use serde_json::Value;

fn vicuna() -> PathBuf {
    fixture("models/vicuna-tiny")
}

fn picture() -> PathBuf {
    fixture("preprocess/images/photo_b.png")
}

/// A table of questions with options. `broken` is the row whose picture is none.
fn table(dir: &Path, rows: usize, broken: Option<usize>) -> PathBuf {
    let image = STANDARD.encode(std::fs::read(picture()).unwrap());
    let wrong =
        STANDARD.encode("no picture at all, though long enough to be taken for one and not for an index");
    let mut text = "index\tquestion\tA\tB\tanswer\tcategory\tl2-category\timage\n".to_owned();
    for row in 0..rows {
        let image = if broken == Some(row) { &wrong } else { &image };
        text += &format!("{row}\tIs this number {row}?\ta cat\ta dog\tA\tpets\tall\t{image}\n");
    }
    let path = dir.join("MMStar.tsv");
    std::fs::write(&path, text).unwrap();
    path
}

/// `eval` of a benchmark in a folder.
fn eval(data: &Path, output: &Path) -> Command {
    let mut command = program();
    command.args(["eval", "--max-new-tokens", "6", "--batch-size", "3"]).args(common::device());
    command.arg("--model").arg(vicuna()).arg("--data").arg(data).arg("--output").arg(output);
    command
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(folder: &Path) -> Vec<Value> {
    read(folder.join("answers.jsonl")).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exit code and stderr.
fn ended(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The folder of a recorded case that is part of the sources.
fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tg-llava-benchmarks/tests/golden").join(case)
}

/// `score` of answers to a data set.
fn score(data: &Path, predictions: &Path) -> Command {
    let mut command = program();
    command.arg("score").arg("--data").arg(data).arg("--predictions").arg(predictions);
    command
}
