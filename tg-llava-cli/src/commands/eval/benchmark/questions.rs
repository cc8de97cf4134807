//! The questions of a benchmark, by harness.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use tg_llava_benchmarks::dataset::Kind;
use tg_llava_benchmarks::llava::{self, mmbench, mmbench::Language, read_lines};
use tg_llava_benchmarks::prompt::Question;
use tg_llava_benchmarks::table::Table;
use tg_llava_core::conversation::Turn;
use tg_llava_core::tokenizer::IMAGE_TAG;

use super::Harness;
use crate::failure::Failure;

/// Benchmarks that LLaVA asks with the script that has the shorter answers.
const WITH_LOADER: [&str; 7] = ["pope", "mme", "textvqa", "gqa", "vizwiz", "vqav2", "seed"];

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
    /// MMBench as LLaVA's script asks it.
    Options {
        /// The data set.
        table: Table,
        /// In which language the letter is asked for.
        language: Language,
    },
    /// LLaVA's files of questions.
    Lines {
        /// The file, for errors.
        file: String,
        /// Its questions.
        lines: Vec<Line>,
    },
}

/// A question of LLaVA's files.
#[derive(Debug)]
pub struct Line {
    /// Its id as the file has it, a text or a number, which scorers look up.
    pub id: Value,
    /// Its picture's file.
    pub image: Option<String>,
    /// All that is asked.
    pub text: String,
    /// How often it was asked further up; some files ask a question twice.
    pub repeated: usize,
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
        question_id: Value,
        /// What was asked.
        prompt: String,
        /// The answer.
        text: &'a str,
        /// Where scripts put a random name.
        answer_id: String,
        /// The scripts name the model here.
        model_id: &'a str,
        /// Nothing.
        metadata: Value,
    },
}

impl Questions {
    /// Reads the data set `name` from the `text` of a file.
    pub fn new(text: &str, path: &Path, name: &str, harness: Harness) -> Result<Self, Failure> {
        let file = path.to_string_lossy().into_owned();
        let input = |error: anyhow::Error| Failure::Input(error);
        match harness {
            Harness::Vlmevalkit => {
                let kind = crate::commands::score::kind(name)?;
                let table = Table::read(text, &file).map_err(|e| input(e.into()))?;
                table.need(&["index", "question"]).map_err(|e| input(e.into()))?;
                if !table.has("image") {
                    table.need(&["image_path"]).map_err(|e| input(e.into()))?;
                }
                let rows = table.rows().map_err(|e| input(e.into()))?;
                Ok(Self::Kit { table, kind, rows })
            }
            Harness::Llava if super::is_table(path) => {
                let table = Table::read(text, &file).map_err(|e| input(e.into()))?;
                table.need(&["index", "question", "image"]).map_err(|e| input(e.into()))?;
                table.rows().map_err(|e| input(e.into()))?;
                let chinese = name.to_lowercase().split(['_', '-']).any(|part| part == "cn");
                let language = if chinese { Language::Chinese } else { Language::English };
                Ok(Self::Options { table, language })
            }
            Harness::Llava => {
                let mut lines = if text.trim_start().starts_with('[') {
                    conversations(text, &file)?
                } else {
                    let values: Vec<Value> = read_lines(text, &file).map_err(|e| input(e.into()))?;
                    let questions: Vec<llava::Question> =
                        read_lines(text, &file).map_err(|e| input(e.into()))?;
                    let line = |(value, question): (Value, llava::Question)| Line {
                        id: value["question_id"].clone(),
                        image: question.image,
                        text: question.text,
                        repeated: 0,
                    };
                    values.into_iter().zip(questions).map(line).collect()
                };
                let mut seen = BTreeMap::new();
                for line in &mut lines {
                    let times: &mut usize = seen.entry(key(&line.id, &line.text)).or_default();
                    line.repeated = *times;
                    *times += 1;
                }
                Ok(Self::Lines { file, lines })
            }
        }
    }

    /// The rows to answer, in their order.
    pub fn order(&self) -> Vec<usize> {
        match self {
            Self::Kit { rows, .. } => rows.clone(),
            Self::Options { table, .. } => (0..table.len()).collect(),
            Self::Lines { lines, .. } => (0..lines.len()).collect(),
        }
    }

    /// What tells a row from all others. Some of LLaVA's files ask several questions under one id (TextVQA), so there it is the id
    /// with the question.
    pub fn index(&self, row: usize) -> String {
        match self {
            Self::Kit { table, .. } | Self::Options { table, .. } => table.shown(row, "index").to_owned(),
            Self::Lines { lines, .. } => {
                let Line { id, text, repeated, .. } = &lines[row];
                repetition(key(id, text), *repeated)
            }
        }
    }

    /// A row by file, line and name, for errors.
    pub fn place(&self, row: usize) -> String {
        match self {
            Self::Kit { table, .. } | Self::Options { table, .. } => {
                format!("{}, line {}, index {}", table.file(), table.line(row), self.index(row))
            }
            Self::Lines { file, lines } => format!("{file}, question {}", lines[row].id),
        }
    }

    /// Longest answer to the data set `name` in tokens, unless the user says otherwise.
    pub fn max_new_tokens(&self, name: &str) -> usize {
        let name = name.to_lowercase();
        match self {
            Self::Kit { .. } => 2048,
            Self::Lines { .. } if WITH_LOADER.iter().any(|known| name.contains(known)) => 128,
            Self::Options { .. } | Self::Lines { .. } => 1024,
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
            Self::Options { table, language } => {
                let text = mmbench::question(table, row, *language);
                let pictures = table.pictures(row)?.into_iter().map(Picture::Base64).collect();
                Asked { guide: llava::guide(&text), wrapped: llava::prompt(&text, true), text, pictures }
            }
            Self::Lines { lines, .. } => {
                let Line { image, text, .. } = &lines[row];
                let pictures: Vec<Picture> = image.clone().map(Picture::File).into_iter().collect();
                let wrapped = llava::prompt(text, !pictures.is_empty());
                Asked { guide: llava::guide(text), wrapped, text: text.clone(), pictures }
            }
        })
    }

    /// The answer to `row` as its harness keeps it.
    pub fn answered<'a>(&self, row: usize, answer: &'a str) -> Answered<'a> {
        let index = |table: &Table| {
            let index = table.shown(row, "index");
            index.parse::<i64>().map_or_else(|_| index.into(), Value::from)
        };
        let llava = |question_id: Value, prompt: String| Answered::Llava {
            question_id,
            prompt,
            text: answer,
            answer_id: format!("answer{row:06}"),
            model_id: "tg-llava",
            metadata: json!({}),
        };
        match self {
            Self::Kit { table, .. } => Answered::Kit { index: index(table), prediction: answer },
            Self::Options { table, language } => {
                // The script notes the question without the line that asks for the letter.
                let mut prompt = mmbench::question(table, row, *language);
                prompt.truncate(prompt.rfind('\n').unwrap_or(prompt.len()));
                llava(index(table), prompt)
            }
            Self::Lines { lines, .. } => llava(lines[row].id.clone(), lines[row].text.clone()),
        }
    }

    /// What [`Self::index`] says of the row that a line of answers is about, for its first [`repetition`].
    pub fn index_of(&self, line: &Value) -> Option<String> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match self {
            Self::Kit { .. } => line.get("index").map(text),
            Self::Options { .. } => line.get("question_id").map(text),
            Self::Lines { .. } => Some(key(line.get("question_id")?, line.get("prompt")?.as_str()?)),
        }
    }

    /// The answer that a line of answers has.
    pub fn answer_of<'v>(&self, line: &'v Value) -> Option<&'v str> {
        let name = if matches!(self, Self::Kit { .. }) { "prediction" } else { "text" };
        line.get(name)?.as_str()
    }
}

/// The name of a row whose question was asked so often before.
pub fn repetition(index: String, times: usize) -> String {
    if times == 0 { index } else { format!("{index}\n{times}") }
}

fn key(id: &Value, text: &str) -> String {
    format!("{id}\n{text}")
}

/// ScienceQA's questions, which are conversations.
fn conversations(text: &str, file: &str) -> Result<Vec<Line>, Failure> {
    let values: Vec<Value> = serde_json::from_str(text)
        .map_err(|error| Failure::input(format_args!("{file}: {error}; expected a list of conversations")))?;
    let line = |value: &Value| {
        let turn = value["conversations"][0]["value"].as_str().ok_or_else(|| {
            Failure::input(format_args!(
                "{file}, question {}: no `conversations` with a first turn",
                value["id"]
            ))
        })?;
        let image = value["image"].as_str().map(str::to_owned);
        let text = llava::choice::scienceqa_question(turn);
        Ok(Line { id: value["id"].clone(), image, text, repeated: 0 })
    };
    values.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use tg_llava_core::conversation::{Conversation, Template};

    use super::*;

    /// A data set, and the prompts that were recorded of it, where these lie.
    fn golden(folder: &Path) -> Option<(Questions, Vec<Value>)> {
        let meta: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("meta.json")).ok()?).ok()?;
        let name = meta["dataset"].as_str().filter(|_| folder.join("prompts.jsonl").is_file())?;
        let path = folder.join(format!("{name}.tsv"));
        let text = std::fs::read_to_string(&path).ok()?;
        let questions = Questions::new(&text, &path, name, Harness::Vlmevalkit).unwrap();
        let prompts = std::fs::read_to_string(folder.join("prompts.jsonl")).unwrap();
        Some((questions, read_lines(&prompts, "prompts.jsonl").unwrap()))
    }

    /// A few cases are part of the sources, all lie beside the repository.
    #[test]
    fn prompts_by_a_models_own_template_are_the_recorded_ones() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let roots = ["../tg-llava-benchmarks/tests/golden", "../../shared/fixtures/eval"];
        let entries = |folder: &Path| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let cases = roots.iter().flat_map(|root| entries(&here.join(root))).flat_map(|case| entries(&case));
        let mut compared = 0;
        for (questions, prompts) in cases.filter_map(|folder| golden(&folder)) {
            let order = questions.order();
            assert_eq!(order.len(), prompts.len());
            for (row, golden) in order.into_iter().zip(prompts) {
                let asked = questions.asked(row).unwrap();
                assert_eq!(asked.wrapped, golden["prompt"].as_str().unwrap());
                assert_eq!(asked.guide, golden["guide"].as_str().unwrap());
                for (name, prompt) in golden["conv"].as_object().unwrap() {
                    let turn = asked.turn();
                    let mut conversation = Conversation::new(Template::by_name(name).unwrap());
                    conversation.push(turn.from.role(), turn.value);
                    conversation.push_open_answer();
                    let text = conversation.prompt().unwrap().text;
                    assert_eq!(text, prompt.as_str().unwrap(), "{}", questions.place(row));
                    compared += 1;
                }
            }
        }
        assert!(compared >= 100, "{compared}");
    }
}
