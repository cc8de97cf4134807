//! LLaVA-Bench: a judge compares answers with those of another model.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::annotations::read_json_lines;
use super::{Answer, LlavaError, Scored};
use crate::judge::{Judge, JudgedRows, Tries};
use crate::report::{Item, Report};
use crate::score::judged::{BenchScores, Rounding, pair};

/// What a judge is shown of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// The question's id.
    pub id: String,
    /// Its group.
    pub category: String,
    question: String,
    caption: String,
    reference: String,
    answer: String,
}

/// All that a judge compares, in order.
#[derive(Debug, Clone)]
pub struct Reviewed(Vec<Review>);

/// What there is to see in a picture.
#[derive(Deserialize)]
struct Context {
    image: String,
    caption: Value,
}

impl Reviewed {
    /// The answers beside the reference's, and what there is to see in the pictures.
    ///
    /// # Errors
    /// [`LlavaError`] where the annotations lack a question or a picture.
    pub fn new(scored: &Scored<'_>) -> Result<Self, LlavaError> {
        let contexts_path = scored.annotations.file(&["context.jsonl"])?;
        let contexts: Vec<Context> = read_json_lines(&contexts_path)?;
        let contexts: BTreeMap<String, String> =
            contexts.into_iter().map(|context| (context.image, lines(&context.caption))).collect();
        let references_path = scored.annotations.file(&["answers_gpt4.jsonl"])?;
        let references: Vec<Answer> = read_json_lines(&references_path)?;
        let references: BTreeMap<String, String> =
            references.into_iter().map(|answer| (answer.question_id.to_string(), answer.text)).collect();
        let asked = scored.questions.all.iter().zip(&scored.of_questions);
        let review = |(question, answer): (&super::Question, &Option<&Answer>)| {
            let id = question.id.to_string();
            let picture = question.image.clone().unwrap_or_default();
            let unknown = |path: &std::path::PathBuf, what| LlavaError::Unknown { path: path.clone(), what };
            let caption = contexts
                .get(&picture)
                .ok_or_else(|| unknown(&contexts_path, format!("picture {picture}")))?
                .clone();
            let reference = references
                .get(&id)
                .ok_or_else(|| unknown(&references_path, format!("question {id}")))?
                .clone();
            let category = format!("llava_bench_{}", question.category.as_deref().unwrap_or_default());
            let answer = answer.map(|answer| answer.text.clone()).unwrap_or_default();
            Ok(Review { id, category, question: question.text.clone(), caption, reference, answer })
        };
        Ok(Self(asked.map(review).collect::<Result<_, LlavaError>>()?))
    }

    /// In their order.
    pub fn reviews(&self) -> &[Review] {
        &self.0
    }

    /// What the judge says about each question: the reference's score and the model's.
    pub fn pairs(&self, judge: &mut dyn Judge) -> Vec<[f64; 2]> {
        let once = Tries { count: 1, first: 0.2, step: 0.0, max_tokens: 1024 };
        let mut ask = |review: &Review| once.ask(judge, &review.id, |reply| Some(pair(reply)));
        self.0.iter().map(|review| ask(review).unwrap_or([-1.0; 2])).collect()
    }

    /// The scores by category and of `all`.
    pub fn score(&self, judge: &mut dyn Judge) -> Report {
        let pairs = self.pairs(judge);
        let mut groups: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
        for (review, &pair) in self.0.iter().zip(&pairs) {
            for group in ["all", &review.category] {
                groups.entry(group).or_default().push(pair);
            }
        }
        let split = |(group, pairs): (&str, Vec<[f64; 2]>)| {
            let BenchScores { relative, reference, model } = BenchScores::new(&pairs, Rounding::Python);
            let named = [("relative", relative), ("reference", reference), ("model", model)];
            (group.to_owned(), named.map(|(name, value)| (name.to_owned(), value)).into())
        };
        let item =
            |(review, [_, model]): (&Review, &[f64; 2])| Item::new(review.id.clone(), None, model / 10.0);
        Report {
            items: self.0.iter().zip(&pairs).map(item).collect(),
            splits: groups.into_iter().map(split).collect(),
        }
    }
}

impl JudgedRows for Reviewed {
    fn value(&self, index: &str, name: &str) -> Option<String> {
        let review = self.0.iter().find(|review| review.id == index)?;
        let value = match name {
            "question" => &review.question,
            "caption" => &review.caption,
            "gpt4_ans" => &review.reference,
            "prediction" => &review.answer,
            _ => return None,
        };
        Some(value.clone())
    }
}

/// A caption, which is a text or a list of lines.
fn lines(caption: &Value) -> String {
    let texts = caption.as_array().map_or(std::slice::from_ref(caption), Vec::as_slice);
    texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}
