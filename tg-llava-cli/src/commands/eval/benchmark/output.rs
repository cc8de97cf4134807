//! What a benchmark came to: a table, and files for other scorers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use tg_llava_benchmarks::llava::{gqa, mmbench, vqa};
use tg_llava_benchmarks::report::{Item, Report};
use tg_llava_benchmarks::score::Predictions;
use tg_llava_benchmarks::table::Table;

use super::questions::{Line, Questions};
use super::{BenchmarkArgs, Harness};
use crate::commands::score;
use crate::console::{Console, print, print_json};
use crate::failure::Failure;
use crate::judge::Scored;

/// What VLMEvalKit writes for an answer that it did not get; its scorers know it.
const FAILED: &str = "Failed to obtain answer via API.";

/// How many failures are printed before the rest is counted.
const SHOWN: usize = 20;

/// All that the end of a run tells.
#[derive(Debug)]
pub struct Summary<'a> {
    /// The data set.
    pub name: &'a str,
    /// Whose evaluation it is.
    pub harness: Harness,
    /// Where files go.
    pub output: &'a Path,
    /// Rows without answer, and why.
    pub failures: &'a [String],
    /// Rows that were to be answered.
    pub wanted: usize,
}

impl Summary<'_> {
    /// Scores the answers, writes the files, and prints the table.
    ///
    /// # Errors
    /// Where the data set cannot be scored, or a file cannot be written.
    pub fn finish(
        &self,
        questions: &Questions,
        answers: &BTreeMap<String, String>,
        args: &BenchmarkArgs,
        console: &Console,
    ) -> Result<(), Failure> {
        let order = questions.order();
        let whole = self.wanted == order.len();
        let found = |row: &usize| answers.get(&questions.index(*row)).map_or(FAILED, String::as_str);
        let (mut state, mut report) = ("not scored, since only a part was asked", None);
        let mut files = Vec::new();
        match questions {
            Questions::Kit { table, kind, rows } => {
                files.push(self.write(&format!("{}.tsv", self.name), &predicted(table, rows, found))?);
                if whole {
                    let all = rows.iter().map(|row| (questions.index(*row), found(row).to_owned()));
                    let predictions = &Predictions::new(all);
                    let scored = Scored { table, kind: *kind, predictions };
                    (state, report) =
                        score::state(args.judge.score(scored, args.rules.into(), self.output)?);
                }
            }
            Questions::Options { table, .. } => {
                state = "not scored; its server scores the upload";
                let rows = order.iter().map(|row| mmbench::upload_row(table, *row, found(row)));
                let rows = std::iter::once(mmbench::upload_columns(table)).chain(rows);
                files.push(self.write("upload.csv", &separated(rows, ','))?);
            }
            Questions::Lines { lines, .. } => {
                state = "not scored; LLaVA's scripts or the benchmark's server do";
                let mut entries = Vec::new();
                for (line, row) in lines.iter().zip(&order) {
                    entries.push((line, answers.get(&questions.index(*row)).map_or("", String::as_str)));
                }
                if let Some(upload) = upload(self.name, &entries) {
                    files.push(self.write("upload.json", &(upload.to_string() + "\n"))?);
                }
            }
        }
        if let Some(report) = &report {
            files.push(self.write("verdicts.csv", &verdicts(report))?);
        }
        let value = json!({
            "benchmark": self.name,
            "harness": self.harness.name(),
            "state": state,
            "answered": answers.len(),
            "failures": self.failures,
            "report": report,
        });
        let pretty = serde_json::to_string_pretty(&value).map_err(|e| Failure::Run(e.into()))?;
        files.push(self.write("scores.json", &(pretty + "\n"))?);
        for failure in self.failures.iter().take(SHOWN) {
            console.error(failure);
        }
        if self.failures.len() > SHOWN {
            let more = self.failures.len() - SHOWN;
            console.error(format_args!("and {more} questions more; scores.json lists all"));
        }
        if console.json {
            return print_json(&value, true);
        }
        let mut text = match &report {
            Some(report) => score::table(self.name, report),
            None => format!("{}: {state}\n", self.name),
        };
        if !self.failures.is_empty() {
            text += &format!("{} question(s) have no answer; they count as wrong\n", self.failures.len());
        }
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        console.note(format_args!("written: {}", files.join(", ")));
        print(&text)
    }

    /// Writes a file in whole.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.output.join(name);
        let written = std::fs::write(&path, text);
        written.map_err(|error| Failure::Run(anyhow::anyhow!("{}: {error}", path.display())))?;
        Ok(path)
    }
}

/// The data set with the column `prediction`, and without its pictures, as VLMEvalKit keeps it.
fn predicted<'a>(table: &Table, rows: &[usize], found: impl Fn(&usize) -> &'a str) -> String {
    let columns: Vec<&String> = table.columns().iter().filter(|column| *column != "image").collect();
    let header = columns.iter().map(|column| (*column).clone()).chain(["prediction".to_owned()]).collect();
    let line = |row: &usize| -> Vec<String> {
        let cells = columns.iter().map(|column| table.cell(*row, column).unwrap_or_default().to_owned());
        cells.chain([found(row).to_owned()]).collect()
    };
    separated(std::iter::once(header).chain(rows.iter().map(line)), '\t')
}

/// What a server is sent, where it takes JSON: VizWiz and VQAv2 a list of answers in one form, GQA a list, MM-Vet an object.
fn upload(name: &str, entries: &[(&Line, &str)]) -> Option<serde_json::Value> {
    let name = name.to_lowercase();
    let list = |entry: &dyn Fn(&(&Line, &str)) -> serde_json::Value| {
        Some(entries.iter().map(entry).collect::<serde_json::Value>())
    };
    if name.contains("vizwiz") {
        return list(&|(line, answer)| json!({ "image": line.image, "answer": vqa::submitted(answer) }));
    }
    if name.contains("vqav2") {
        return list(&|(line, answer)| json!({ "question_id": line.id, "answer": vqa::submitted(answer) }));
    }
    if name.contains("gqa") {
        return list(
            &|(line, answer)| json!({ "questionId": line.id, "prediction": gqa::submitted(answer) }),
        );
    }
    if name.contains("mm-vet") || name.contains("mmvet") {
        let id = |id: &serde_json::Value| id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let entries = entries.iter().map(|(line, answer)| (format!("v1_{}", id(&line.id)), json!(answer)));
        return Some(serde_json::Value::Object(entries.collect()));
    }
    None
}

/// Every row's verdict.
fn verdicts(report: &Report) -> String {
    let header = ["index", "read", "score"].map(str::to_owned).to_vec();
    let line = |item: &Item| {
        let score = item.score.map_or_else(String::new, |score| score.to_string());
        vec![item.index.clone(), item.read.clone().unwrap_or_default(), score]
    };
    separated(std::iter::once(header).chain(report.items.iter().map(line)), ',')
}

/// Rows of cells; quotes stand around those that need them.
fn separated(rows: impl Iterator<Item = Vec<String>>, separator: char) -> String {
    let cell = |cell: &String| match cell.contains([separator, '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.clone(),
    };
    let line =
        |cells: Vec<String>| cells.iter().map(cell).collect::<Vec<_>>().join(&separator.to_string()) + "\n";
    rows.map(line).collect()
}

#[cfg(test)]
mod tests {
    use tg_llava_benchmarks::llava::{Answer, read_lines};

    use super::*;

    fn line(id: serde_json::Value, image: &str) -> Line {
        Line { id, image: Some(image.to_owned()), text: String::new(), repeated: 0 }
    }

    #[test]
    fn servers_are_sent_answers_in_their_form() {
        let (one, two) = (line(json!(7), "a.jpg"), line(json!("8"), "b.jpg"));
        let entries = [(&one, "The Cat."), (&two, "Yes.")];
        for (name, expected) in [
            (
                "vizwiz_test",
                json!([{ "image": "a.jpg", "answer": "cat" }, { "image": "b.jpg", "answer": "yes" }]),
            ),
            (
                "llava_vqav2",
                json!([{ "question_id": 7, "answer": "cat" }, { "question_id": "8", "answer": "yes" }]),
            ),
            (
                "llava_gqa",
                json!([{ "questionId": 7, "prediction": "the cat" }, { "questionId": "8", "prediction": "yes" }]),
            ),
            ("llava-mm-vet", json!({ "v1_7": "The Cat.", "v1_8": "Yes." })),
        ] {
            assert_eq!(upload(name, &entries), Some(expected), "{name}");
        }
        assert_eq!(upload("llava_pope_test", &entries), None);
    }

    /// Where the recorded cases lie beside the repository.
    #[test]
    fn uploads_are_the_recorded_ones() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/eval");
        for (case, data, key) in
            [("mmvet/llava", "llava-mm-vet.jsonl", "results"), ("vizwiz/llava", "llava_test.jsonl", "upload")]
        {
            let folder = cases.join(case);
            let Ok(golden) = std::fs::read_to_string(folder.join("expected.json")) else { continue };
            let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
            let text = std::fs::read_to_string(folder.join(data)).unwrap();
            let questions = Questions::new(&text, &folder.join(data), case, Harness::Llava).unwrap();
            let Questions::Lines { lines, .. } = &questions else { panic!("{case}: no lines") };
            let answers = std::fs::read_to_string(folder.join("answers/model.jsonl")).unwrap();
            let answers: Vec<Answer> = read_lines(&answers, "model.jsonl").unwrap();
            let id = |line: &Line| line.id.as_str().map_or_else(|| line.id.to_string(), str::to_owned);
            let of = |line: &Line| answers.iter().find(|answer| answer.question_id == id(line));
            let entries: Vec<_> =
                lines.iter().filter_map(|line| Some((line, of(line)?.text.as_str()))).collect();
            assert_eq!(upload(case, &entries).as_ref(), Some(&golden[key]), "{case}");
        }
    }
}
