//! SEED: the letter of an option, alone.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::annotations::read_json;
use super::{Id, LlavaError, Scored};
use crate::report::{Item, Report};

/// SEED's file.
#[derive(Debug, Deserialize)]
pub(super) struct Seed {
    pub questions: Vec<SeedQuestion>,
    question_type: BTreeMap<String, u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SeedQuestion {
    pub question_id: Id,
    question_type_id: u32,
    data_type: String,
    answer: String,
}

impl Seed {
    pub fn read(scored: &Scored<'_>) -> Result<Self, LlavaError> {
        read_json(&scored.annotations.only(&["SEED-Bench.json"])?)
    }
}

/// The scores of all questions in percent; they are wrong where they have no answer.
pub(super) fn score(scored: &Scored<'_>) -> Result<Report, LlavaError> {
    let seed = Seed::read(scored)?;
    let names: BTreeMap<u32, &str> =
        seed.question_type.iter().map(|(name, &id)| (id, name.as_str())).collect();
    let answers = scored.answers_by_id();
    let (mut items, mut groups) = (Vec::new(), BTreeMap::<&str, Vec<f64>>::new());
    for question in &seed.questions {
        let id = question.question_id.to_string();
        let answer = answers.get(&id).map(|answer| answer.text.clone());
        let hit = f64::from(u8::from(answer.as_ref() == Some(&question.answer)));
        let kind = names.get(&question.question_type_id).copied();
        for group in kind.into_iter().chain(["Total", question.data_type.as_str()]) {
            groups.entry(group).or_default().push(hit);
        }
        items.push(Item::new(id, answer, hit));
    }
    let percent = |hits: Vec<f64>| hits.iter().sum::<f64>() / hits.len() as f64 * 100.0;
    let scores = groups.into_iter().map(|(name, hits)| (name.to_owned(), percent(hits)));
    Ok(Report::of_one(items, scores))
}
