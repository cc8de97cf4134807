//! What is asked, and what was answered.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use super::{Benchmark, Id, LineError, LlavaError, choice, mmbench, numbered_lines};
use crate::table::Table;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its id; in some files several questions have the same.
    pub id: Id,
    /// The picture's file; MMBench has its pictures in its table.
    pub image: Option<String>,
    /// All that is asked.
    pub text: String,
    /// What files of answers say was asked, where that is not all of it.
    pub noted: Option<String>,
    /// The group that it is scored in.
    pub category: Option<String>,
    /// Where it stands in the file, for errors.
    pub place: String,
}

impl Question {
    /// What files of answers say was asked.
    pub fn noted(&self) -> &str {
        self.noted.as_deref().unwrap_or(&self.text)
    }
}

/// A file of questions.
#[derive(Debug, Clone)]
pub struct Questions {
    /// What errors call the file.
    pub file: String,
    /// Whose they are; `None` where their name does not tell, so that they can be asked, and no more.
    pub benchmark: Option<Benchmark>,
    /// In their order.
    pub all: Vec<Question>,
    /// MMBench's table, whose rows are the questions.
    pub table: Option<Table>,
}

/// An answer as LLaVA's scripts write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// The question's id.
    pub question_id: Id,
    /// What was asked.
    #[serde(default)]
    pub prompt: String,
    /// What was answered.
    pub text: String,
    /// Line of the file, from 1.
    #[serde(skip)]
    pub line: usize,
}

/// A file of answers.
#[derive(Debug, Clone)]
pub struct Answers {
    /// What errors call the file.
    pub file: String,
    /// In their order.
    pub all: Vec<Answer>,
}

impl Answers {
    /// Reads the `text` of a file, which is called `file`.
    ///
    /// # Errors
    /// [`LineError`] where a line is no answer.
    pub fn read(text: &str, file: &str) -> Result<Self, LineError> {
        let lines = numbered_lines(text, file)?.into_iter();
        let all = lines.map(|(line, answer)| Answer { line, ..answer }).collect();
        Ok(Self { file: file.to_owned(), all })
    }
}

/// A line of most files.
#[derive(Deserialize)]
struct Line {
    question_id: Id,
    image: Option<String>,
    text: String,
    category: Option<String>,
}

impl Questions {
    /// Reads the `text` of a file, which is called `file`: a table for MMBench, a list of conversations for ScienceQA, else JSON lines.
    ///
    /// # Errors
    /// [`LlavaError`] with the line or the question that cannot be used.
    pub fn read(text: &str, file: &str, benchmark: Option<Benchmark>) -> Result<Self, LlavaError> {
        let mut table = None;
        let all = match benchmark {
            Some(Benchmark::MmBench(language)) => {
                let read = Table::read(text, file)?;
                read.need(&["index", "question", "image"])?;
                read.rows()?;
                let all = (0..read.len()).map(|row| mmbench::question(&read, row, language)).collect();
                table = Some(read);
                all
            }
            _ if text.trim_start().starts_with('[') => conversations(text, file)?,
            _ => {
                let lines: Vec<(usize, Line)> = numbered_lines(text, file)?;
                let question = |(line, Line { question_id: id, image, text, category })| Question {
                    id,
                    image,
                    text,
                    noted: None,
                    category,
                    place: format!("line {line}"),
                };
                lines.into_iter().map(question).collect()
            }
        };
        Ok(Self { file: file.to_owned(), benchmark, all, table })
    }

    /// The answer to each question. Where questions have the same id, what was asked tells them apart, and after that their order.
    ///
    /// # Errors
    /// [`LlavaError::Foreign`] and [`LlavaError::Twice`] for answers that belong to no question.
    pub fn answered<'a>(&self, answers: &'a Answers) -> Result<Vec<Option<&'a Answer>>, LlavaError> {
        let mut by_id: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, question) in self.all.iter().enumerate() {
            by_id.entry(question.id.to_string()).or_default().push(place);
        }
        let mut open: BTreeMap<(String, &str), VecDeque<usize>> = BTreeMap::new();
        for (id, places) in &by_id {
            let alone = places.len() == 1;
            for &place in places {
                let noted = if alone { "" } else { self.all[place].noted() };
                open.entry((id.clone(), noted)).or_default().push_back(place);
            }
        }
        let mut found = vec![None; self.all.len()];
        for answer in &answers.all {
            let (file, line) = (answers.file.clone(), answer.line);
            let id = answer.question_id.clone();
            let foreign = || {
                let (file, id, questions) = (file.clone(), id.clone(), self.file.clone());
                LlavaError::Foreign { file, line, id, questions }
            };
            let name = id.to_string();
            let alone = by_id.get(&name).map(|places| places.len() == 1);
            let noted = if alone.ok_or_else(foreign)? { "" } else { answer.prompt.as_str() };
            let places = open.get_mut(&(name, noted)).ok_or_else(foreign)?;
            let place = places.pop_front().ok_or(LlavaError::Twice { file, line, id })?;
            found[place] = Some(answer);
        }
        Ok(found)
    }
}

/// ScienceQA's questions, which are conversations.
fn conversations(text: &str, file: &str) -> Result<Vec<Question>, LlavaError> {
    let values: Vec<Value> =
        serde_json::from_str(text).map_err(|source| LlavaError::Json { path: file.into(), source })?;
    let question = |(value, number): (&Value, usize)| {
        let place = format!("entry {number}");
        let wrong = |reason: &str| LlavaError::Question {
            file: file.to_owned(),
            place: place.clone(),
            reason: format!("{reason}; expected `id` and `conversations` with a first turn"),
        };
        let id = Id::deserialize(&value["id"]).map_err(|e| wrong(&e.to_string()))?;
        let turn = value["conversations"][0]["value"].as_str().ok_or_else(|| wrong("no conversation"))?;
        let image = value["image"].as_str().map(str::to_owned);
        let text = choice::scienceqa_question(turn);
        // The script notes the picture too; the scorer looks for it.
        let noted = image.as_ref().map(|_| format!("<image>\n{text}"));
        Ok(Question { id, image, text, noted, category: None, place })
    };
    values.iter().zip(1..).map(question).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions(lines: &[&str]) -> Questions {
        Questions::read(&lines.join("\n"), "q.jsonl", None).unwrap_or_else(|error| panic!("{error}"))
    }

    fn answer(id: &str, prompt: &str, text: &str) -> Answer {
        Answer { question_id: id.into(), prompt: prompt.to_owned(), text: text.to_owned(), line: 5 }
    }

    fn file(answers: &[Answer]) -> Answers {
        Answers { file: "a.jsonl".to_owned(), all: answers.to_vec() }
    }

    #[test]
    fn answers_find_their_questions_by_id_then_prompt_then_order() {
        let asked = questions(&[
            r#"{"question_id": 1, "text": "Who?"}"#,
            r#"{"question_id": "a", "text": "What?"}"#,
            r#"{"question_id": "a", "text": "Where?"}"#,
            r#"{"question_id": "a", "text": "What?"}"#,
        ]);
        let answers = file(&[
            answer("a", "Where?", "w"),
            answer("1", "another wording", "x"),
            answer("a", "What?", "y"),
            answer("a", "What?", "z"),
        ]);
        let found = asked.answered(&answers).unwrap();
        let texts: Vec<_> = found.into_iter().map(|answer| answer.unwrap().text.as_str()).collect();
        assert_eq!(texts, ["x", "y", "w", "z"]);
        let error = |answers: &[Answer]| asked.answered(&file(answers)).unwrap_err().to_string();
        assert!(
            error(&[answer("1", "", ""), answer("7", "", "")])
                .contains("a.jsonl, line 5: q.jsonl has no such question 7")
        );
        assert!(
            error(&[answer("1", "", ""), answer("1", "", "")])
                .contains("a.jsonl, line 5: question 1 has an answer further up")
        );
    }

    #[test]
    fn a_line_or_a_question_that_cannot_be_used_is_named() {
        let error = |text: &str| Questions::read(text, "q.jsonl", None).unwrap_err().to_string();
        let lines = "{\"question_id\": 1, \"text\": \"a\"}\n\n{\"question_id\": null, \"text\": \"b\"}";
        assert!(error(lines).starts_with("q.jsonl, line 3: null is no id"), "{}", error(lines));
        let list = r#"[{"id": "1", "conversations": [{"value": "a"}]}, {"id": "2"}]"#;
        assert!(error(list).starts_with("q.jsonl, entry 2: no conversation"), "{}", error(list));
    }
}
