//! The questions of a benchmark, by harness.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tg_llava_benchmarks::dataset::Kind;
use tg_llava_benchmarks::llava::mmbench::{self, Language};
use tg_llava_benchmarks::llava::{self, Benchmark, Id, numbered_lines};
use tg_llava_benchmarks::prompt::Question;
use tg_llava_benchmarks::score::Predictions;
use tg_llava_benchmarks::table::{Table, separated};
use tg_llava_core::conversation::Turn;
use tg_llava_core::tokenizer::IMAGE_TAG;

use super::scoring::Answers;
use super::{Harness, input, is_table};
use crate::failure::Failure;

/// What VLMEvalKit writes for an answer that it did not get; its scorers know it.
const FAILED: &str = "Failed to obtain answer via API.";

/// Questions of a data set.
#[derive(Debug)]
pub enum Questions {
    /// VLMEvalKit's.
    Kit {
        /// The data set.
        table: Table,
        /// What it asks for.
        kind: Kind,
        /// The rows that count.
        rows: Vec<usize>,
    },
    /// LLaVA's scripts'.
    Llava {
        /// Their file.
        questions: llava::Questions,
        /// What tells each from all others.
        names: Vec<String>,
    },
}

/// What is asked about one row.
#[derive(Debug)]
pub struct Asked {
    /// The question; no mark stands for its pictures.
    pub text: String,
    /// What the text tower reads.
    pub guide: String,
    /// The whole string for the tokenizer, where VLMEvalKit's wrapper writes another one than the model's template.
    pub wrapped: String,
    /// Its pictures, in order.
    pub pictures: Vec<Picture>,
}

impl Asked {
    /// The turn that a model's own template takes: a mark for each picture, then the question.
    pub fn turn(&self) -> Turn {
        let marks = format!("{IMAGE_TAG}\n").repeat(self.pictures.len());
        Turn::human(format!("{marks}{}", self.text))
    }
}

/// A picture of a question.
#[derive(Debug)]
pub enum Picture {
    /// In the table.
    Base64(String),
    /// In the folder of pictures.
    File(String),
}

/// An answer as a harness keeps it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answered<'a> {
    /// VLMEvalKit's.
    Kit {
        /// The row's index.
        index: Value,
        /// The answer.
        prediction: &'a str,
    },
    /// LLaVA's scripts'.
    Llava {
        /// The question's id.
        question_id: &'a Id,
        /// Which rotation of the options was asked; of MMBench alone, as all that has `None` elsewhere.
        #[serde(skip_serializing_if = "Option::is_none")]
        round_id: Option<usize>,
        /// What was asked.
        prompt: &'a str,
        /// The answer.
        text: &'a str,
        /// The options' texts.
        #[serde(skip_serializing_if = "Option::is_none")]
        options: Option<Vec<&'a str>>,
        /// The options' letters.
        #[serde(skip_serializing_if = "Option::is_none")]
        option_char: Option<Vec<&'a str>>,
        /// Where scripts put a random name.
        answer_id: String,
        /// The scripts name the model here.
        model_id: &'a str,
        /// Nothing.
        metadata: Value,
    },
}

/// A line of VLMEvalKit's answers.
#[derive(Deserialize)]
struct KitLine {
    index: Id,
    prediction: String,
}

impl Questions {
    /// Reads the data set `name` from the `text` of a file.
    ///
    /// # Errors
    /// [`Failure::Input`] with the file and the line that cannot be used.
    pub fn new(text: &str, path: &Path, name: &str, harness: Harness) -> Result<Self, Failure> {
        let file = path.to_string_lossy().into_owned();
        match harness {
            Harness::Vlmevalkit => {
                let kind = kind(name)?;
                let table = Table::read(text, &file).map_err(input)?;
                table.need(&["index", "question"]).map_err(input)?;
                let rows = table.rows().map_err(input)?;
                Ok(Self::Kit { table, kind, rows })
            }
            Harness::Llava => {
                let benchmark = match Benchmark::of(name) {
                    // The one that LLaVA asks from a table.
                    None if is_table(path) => Some(Benchmark::MmBench(Language::English)),
                    benchmark => benchmark,
                };
                let questions = llava::Questions::read(text, &file, benchmark).map_err(input)?;
                let mut seen: BTreeMap<String, usize> = BTreeMap::new();
                let mut names = Vec::new();
                for question in &questions.all {
                    let key = key(&question.id, question.noted());
                    let times = seen.entry(key.clone()).or_default();
                    names.push(repetition(key, *times));
                    *times += 1;
                }
                Ok(Self::Llava { questions, names })
            }
        }
    }

    /// Fails unless there are pictures to ask about.
    ///
    /// # Errors
    /// [`Failure::Input`] where a table has neither pictures nor the names of files.
    pub fn need_pictures(&self) -> Result<(), Failure> {
        match self {
            Self::Kit { table, .. } if !table.has("image") => table.need(&["image_path"]).map_err(input),
            _ => Ok(()),
        }
    }

    /// The rows to answer, in their order.
    pub fn order(&self) -> Vec<usize> {
        match self {
            Self::Kit { rows, .. } => rows.clone(),
            Self::Llava { questions, .. } => (0..questions.all.len()).collect(),
        }
    }

    /// What tells a row from all others. Some of LLaVA's files ask several questions under one id (TextVQA), so there it is the id
    /// with the question.
    pub fn index(&self, row: usize) -> String {
        match self {
            Self::Kit { table, .. } => table.shown(row, "index").to_owned(),
            Self::Llava { names, .. } => names[row].clone(),
        }
    }

    /// A row by file, line and name, for errors.
    pub fn place(&self, row: usize) -> String {
        match self {
            Self::Kit { table, .. } => {
                format!("{}, line {}, index {}", table.file(), table.line(row), self.index(row))
            }
            Self::Llava { questions, .. } => {
                let question = &questions.all[row];
                format!("{}, {}, question {}", questions.file, question.place, question.id)
            }
        }
    }

    /// Longest answer in tokens, unless the user says otherwise.
    pub fn max_new_tokens(&self) -> usize {
        match self {
            Self::Kit { .. } => 2048,
            Self::Llava { questions, .. } => questions.benchmark.map_or(1024, Benchmark::max_new_tokens),
        }
    }

    /// What is asked about `row`.
    pub fn asked(&self, row: usize) -> anyhow::Result<Asked> {
        Ok(match self {
            Self::Kit { table, kind, .. } => {
                let mut question = Question::new(table, row, *kind)?;
                let pictures: Vec<Picture> = if table.has("image") {
                    table.pictures(row)?.into_iter().map(Picture::Base64).collect()
                } else {
                    table.picture_files(row).into_iter().map(Picture::File).collect()
                };
                question.images = pictures.len();
                let (guide, wrapped) = (question.guide(), question.prompt());
                Asked { text: question.text, guide, wrapped, pictures }
            }
            Self::Llava { questions, .. } => {
                let llava::Question { image, text, .. } = &questions.all[row];
                let pictures: Vec<Picture> = match &questions.table {
                    Some(table) => table.pictures(row)?.into_iter().map(Picture::Base64).collect(),
                    None => image.clone().map(Picture::File).into_iter().collect(),
                };
                let wrapped = llava::prompt(text, !pictures.is_empty());
                Asked { guide: llava::guide(text), wrapped, text: text.clone(), pictures }
            }
        })
    }

    /// The answer to `row` as its harness keeps it.
    pub fn answered<'a>(&'a self, row: usize, answer: &'a str) -> Answered<'a> {
        match self {
            Self::Kit { table, .. } => {
                let index = table.shown(row, "index");
                let index = index.parse::<i64>().map_or_else(|_| index.into(), Value::from);
                Answered::Kit { index, prediction: answer }
            }
            Self::Llava { questions, .. } => {
                let question = &questions.all[row];
                let options = questions.table.as_ref().map(|table| mmbench::options(table, row));
                let (option_char, texts) = options.map(|options| options.into_iter().unzip()).unzip();
                Answered::Llava {
                    question_id: &question.id,
                    round_id: questions.table.as_ref().map(|_| 0),
                    prompt: question.noted(),
                    text: answer,
                    options: texts,
                    option_char,
                    answer_id: format!("answer{row:06}"),
                    model_id: "tg-llava",
                    metadata: json!({}),
                }
            }
        }
    }

    /// What [`Self::index`] says of the row that a line of answers is about, for its first [`repetition`].
    pub fn index_of(&self, line: &Value) -> Option<String> {
        match self {
            Self::Kit { .. } => Some(Id::deserialize(line.get("index")?).ok()?.to_string()),
            Self::Llava { .. } => {
                Some(key(&Id::deserialize(line.get("question_id")?).ok()?, line.get("prompt")?.as_str()?))
            }
        }
    }

    /// The answer that a line of answers has.
    pub fn answer_of<'v>(&self, line: &'v Value) -> Option<&'v str> {
        let name = if matches!(self, Self::Kit { .. }) { "prediction" } else { "text" };
        line.get(name)?.as_str()
    }

    /// Answers as their scorer takes them, of a `file` that has them in the questions' order. VLMEvalKit's scorers know a text that stands for an answer that is not there.
    pub fn answers<'a>(&self, file: &Path, found: impl Fn(usize) -> Option<&'a str>) -> Answers {
        match self {
            Self::Kit { rows, .. } => {
                let answer = |&row: &usize| (self.index(row), found(row).unwrap_or(FAILED).to_owned());
                Answers::Kit(Predictions::new(rows.iter().map(answer)))
            }
            Self::Llava { questions, .. } => {
                let answer = |(row, question): (usize, &llava::Question)| {
                    let (question_id, prompt) = (question.id.clone(), question.noted().to_owned());
                    Some(llava::Answer { question_id, prompt, text: found(row)?.to_owned(), line: row + 1 })
                };
                let all = questions.all.iter().enumerate().filter_map(answer).collect();
                Answers::Llava(llava::Answers { file: file.to_string_lossy().into_owned(), all })
            }
        }
    }

    /// Reads answers from the `text` of a file.
    ///
    /// # Errors
    /// [`Failure::Input`] with the line that cannot be used.
    pub fn read_answers(&self, text: &str, path: &Path) -> Result<Answers, Failure> {
        let file = path.to_string_lossy();
        let Self::Kit { table, .. } = self else {
            return Ok(Answers::Llava(llava::Answers::read(text, &file).map_err(input)?));
        };
        let known: BTreeSet<&str> = (0..table.len()).map(|row| table.shown(row, "index")).collect();
        let mut answers = BTreeMap::new();
        for (line, KitLine { index, prediction }) in numbered_lines(text, &file).map_err(input)? {
            let index = index.to_string();
            if !known.contains(index.as_str()) {
                return Err(Failure::input(format_args!(
                    "{file}, line {line}: {} has no row of index {index}; are these predictions of another data set?",
                    table.file()
                )));
            }
            if answers.insert(index.clone(), prediction).is_some() {
                return Err(Failure::input(format_args!(
                    "{file}, line {line}: index {index} has a prediction further up; keep one of them"
                )));
            }
        }
        Ok(Answers::Kit(Predictions::new(answers)))
    }

    /// VLMEvalKit's data set with the column `prediction`, and without its pictures, as it keeps results; `None` for LLaVA's.
    pub fn predicted<'a>(&self, found: impl Fn(usize) -> Option<&'a str>) -> Option<String> {
        let Self::Kit { table, rows, .. } = self else { return None };
        let columns: Vec<&String> = table.columns().iter().filter(|column| *column != "image").collect();
        let header =
            columns.iter().map(|column| (*column).clone()).chain(["prediction".to_owned()]).collect();
        let line = |&row: &usize| -> Vec<String> {
            let cells = columns.iter().map(|column| table.cell(row, column).unwrap_or_default().to_owned());
            cells.chain([found(row).unwrap_or(FAILED).to_owned()]).collect()
        };
        Some(separated(std::iter::once(header).chain(rows.iter().map(line)), '\t'))
    }
}

/// What the data set `name` of VLMEvalKit asks for.
fn kind(name: &str) -> Result<Kind, Failure> {
    Kind::of(name).ok_or_else(|| {
        Failure::input(format_args!(
            "{name:?} is no benchmark that is known; name it with --benchmark, as VLMEvalKit does: {}",
            Kind::NAMES.map(|(known, _)| known).join(", ")
        ))
    })
}

/// The name of a row whose question was asked so often before.
pub fn repetition(index: String, times: usize) -> String {
    if times == 0 { index } else { format!("{index}\n{times}") }
}

fn key(id: &Id, noted: &str) -> String {
    format!("{id}\n{noted}")
}
