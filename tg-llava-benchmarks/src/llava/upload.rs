//! Files that servers and other scorers take.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::seed::Seed;
use super::{Benchmark, Id, LlavaError, Question, Scored, gqa, mmbench, mme, vqa};
use crate::table::separated;

/// What files to submit are called, where they are one.
pub const FILES: [&str; 3] = ["upload.csv", "upload.json", "upload.jsonl"];
/// The folder of those that are several, MME's: a `.txt` file a task.
pub const BY_TASK: &str = "mme";

/// A file to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// What it is called.
    pub name: String,
    /// What it holds.
    pub text: String,
}

impl Upload {
    fn json(value: &Value) -> Vec<Self> {
        vec![Self { name: "upload.json".to_owned(), text: format!("{value}\n") }]
    }
}

/// What a benchmark's server is sent, as the scripts convert answers; none where nothing is submitted. An unanswered question has an
/// empty answer.
///
/// # Errors
/// [`LlavaError`] where annotations that it is made with cannot be used; where there are none, or those of another split, the files that need
/// them are left out.
pub fn files(scored: &Scored<'_>) -> Result<Vec<Upload>, LlavaError> {
    let asked = || {
        scored
            .questions
            .all
            .iter()
            .zip(&scored.of_questions)
            .map(|(question, answer)| (question, answer.map_or("", |answer| answer.text.as_str())))
    };
    let list = |entry: &dyn Fn(&Question, &str) -> Value| -> Value {
        asked().map(|(question, answer)| entry(question, answer)).collect()
    };
    Ok(match scored.questions.benchmark {
        Some(Benchmark::VizWiz) => Upload::json(&list(
            &|question, answer| json!({ "image": question.image, "answer": vqa::submitted(answer) }),
        )),
        Some(Benchmark::Gqa) => Upload::json(&list(
            &|question, answer| json!({ "questionId": question.id, "prediction": gqa::submitted(answer) }),
        )),
        Some(Benchmark::MmVet) => {
            let entries = asked().map(|(question, answer)| (format!("v1_{}", question.id), json!(answer)));
            Upload::json(&Value::Object(entries.collect()))
        }
        Some(Benchmark::VqaV2) => Upload::json(&vqav2(scored)?),
        Some(Benchmark::MmBench(_)) => {
            let Some(table) = &scored.questions.table else { return Ok(Vec::new()) };
            let rows = asked().enumerate().map(|(row, (_, answer))| mmbench::upload_row(table, row, answer));
            let rows = std::iter::once(mmbench::upload_columns(table)).chain(rows);
            vec![Upload { name: "upload.csv".to_owned(), text: separated(rows, ',') }]
        }
        Some(Benchmark::Seed) => match seed(scored) {
            Err(LlavaError::Missing { .. }) => Vec::new(),
            lines => vec![Upload { name: "upload.jsonl".to_owned(), text: lines? }],
        },
        Some(Benchmark::Mme) => match mme::lines(scored) {
            Err(LlavaError::Missing { .. } | LlavaError::Unknown { .. }) => Vec::new(),
            lines => mme_files(&lines?),
        },
        _ => Vec::new(),
    })
}

/// VQAv2's answers to all questions of its test set, where their file is there; '' to those that were not asked.
fn vqav2(scored: &Scored<'_>) -> Result<Value, LlavaError> {
    #[derive(serde::Deserialize)]
    struct Line {
        question_id: Id,
    }
    let ids: Vec<Id> = match scored.annotations.find(&["llava_vqav2_mscoco_test2015.jsonl"]) {
        Some(path) => {
            let lines: Vec<Line> = super::annotations::read_json_lines(&path)?;
            lines.into_iter().map(|line| line.question_id).collect()
        }
        None => scored.questions.all.iter().map(|question| question.id.clone()).collect(),
    };
    let answers = scored.answers_by_id();
    let entry = |id: Id| {
        let answer =
            answers.get(&id.to_string()).map_or(String::new(), |answer| vqa::submitted(&answer.text));
        json!({ "question_id": id, "answer": answer })
    };
    Ok(ids.into_iter().map(entry).collect())
}

/// SEED's answers, in the order of its own file and by the ids there.
fn seed(scored: &Scored<'_>) -> Result<String, LlavaError> {
    let answers = scored.answers_by_id();
    let line = |id: Id| {
        let answer = answers.get(&id.to_string()).map_or("", |answer| answer.text.as_str());
        format!("{}\n", json!({ "question_id": id, "prediction": answer }))
    };
    Ok(Seed::read(scored)?.questions.into_iter().map(|question| line(question.question_id)).collect())
}

/// MME's answers, a file a task, which the release's own scorer reads.
fn mme_files(lines: &[mme::Line]) -> Vec<Upload> {
    let mut tasks: BTreeMap<&str, String> = BTreeMap::new();
    for line in lines {
        let cells = [&line.file, &line.question, &line.answer, &line.prediction];
        // Another line would be another answer there.
        let cells = cells.map(|cell| cell.replace(['\n', '\r', '\t'], " "));
        *tasks.entry(&line.task).or_default() += &(cells.join("\t") + "\n");
    }
    tasks.into_iter().map(|(task, text)| Upload { name: format!("{BY_TASK}/{task}.txt"), text }).collect()
}
