//! TextVQA, VizWiz and VQAv2: answers as they are submitted, and their scores.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::annotations::read_json;
use super::{Id, LlavaError, Scored, two_decimals};
use crate::report::{Item, Report};
use crate::score::normal::{Periods, punctuation_by, words};
use crate::score::short::{ShortItem, soft};
use crate::text;

/// An answer as it is submitted and scored (`EvalAIAnswerProcessor`).
pub fn submitted(answer: &str) -> String {
    let lower = answer.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    let flat = text::strip(&lower).replace(['\n', '\t'], " ");
    words(&punctuation_by(text::strip(&flat), Periods::BeforeNoDigit))
}

/// The question that a prompt of TextVQA asks, in lower case; `None` where it has another form.
pub fn textvqa_question(prompt: &str) -> Option<String> {
    const TOKENS: &str = "Reference OCR token:";
    let lines: Vec<&str> = prompt.split('\n').collect();
    let question = match lines.as_slice() {
        [_, question, _] if prompt.starts_with(TOKENS) => question,
        [question, _, _] if prompt.contains(TOKENS) => question,
        [question, _] => question,
        _ => return None,
    };
    Some(question.to_lowercase())
}

/// An answer in the form that is submitted, scored beside what people answered as TextVQA and VizWiz do.
fn item(index: String, normal: String, answers: &[String]) -> ShortItem {
    let answers: Vec<String> = answers.iter().map(|answer| submitted(answer)).collect();
    ShortItem { score: soft(&normal, &answers), index, normal, answers }
}

/// TextVQA's annotations.
#[derive(Deserialize)]
struct TextVqa {
    data: Vec<TextVqaQuestion>,
}

#[derive(Deserialize)]
struct TextVqaQuestion {
    image_id: Id,
    question: String,
    answers: Vec<String>,
}

/// TextVQA's answers, which are found by picture and question; the index is the picture.
///
/// # Errors
/// [`LlavaError`] where the annotations lack a question.
pub fn textvqa(scored: &Scored<'_>) -> Result<Vec<ShortItem>, LlavaError> {
    let path = scored.annotations.only(&["TextVQA_0.5.1_val.json"])?;
    let data: TextVqa = read_json(&path)?;
    let key = |row: &TextVqaQuestion| (row.image_id.to_string(), row.question.to_lowercase());
    let known: BTreeMap<(String, String), Vec<String>> =
        data.data.into_iter().map(|row| (key(&row), row.answers)).collect();
    let answer = |answer: &super::Answer| {
        let picture = answer.question_id.to_string();
        let found =
            textvqa_question(&answer.prompt).and_then(|question| known.get(&(picture.clone(), question)));
        let what = || format!("picture {picture} with {:?}", answer.prompt);
        let people = found.ok_or_else(|| LlavaError::Unknown { path: path.clone(), what: what() })?;
        Ok(item(picture, submitted(&answer.text), people))
    };
    scored.answers.iter().copied().map(answer).collect()
}

/// What a person answered.
#[derive(Deserialize)]
struct Person {
    answer: String,
}

fn texts(people: &[Person]) -> Vec<String> {
    people.iter().map(|person| person.answer.clone()).collect()
}

#[derive(Deserialize)]
struct VizWizPicture {
    image: String,
    answers: Vec<Person>,
}

/// VizWiz' answers to those pictures that the annotations tell of, in the order of the questions; the index is the picture.
///
/// # Errors
/// [`LlavaError`] where the annotations tell of none.
pub fn vizwiz(scored: &Scored<'_>) -> Result<Vec<ShortItem>, LlavaError> {
    let path = scored.annotations.only(&["annotations.json", "val.json"])?;
    let pictures: Vec<VizWizPicture> = read_json(&path)?;
    let known: BTreeMap<String, Vec<String>> =
        pictures.into_iter().map(|picture| (picture.image, texts(&picture.answers))).collect();
    let asked = scored.questions.all.iter().zip(&scored.of_questions);
    let answered = asked.filter_map(|(question, answer)| {
        let (picture, answer) = (question.image.clone()?, (*answer)?);
        Some(item(picture.clone(), submitted(&answer.text), known.get(&picture)?))
    });
    let items: Vec<ShortItem> = answered.collect();
    if items.is_empty() {
        return Err(LlavaError::Unknown { path, what: "any picture that was asked about".to_owned() });
    }
    Ok(items)
}

#[derive(Deserialize)]
struct VqaV2 {
    annotations: Vec<VqaV2Question>,
}

#[derive(Deserialize)]
struct VqaV2Question {
    question_id: Id,
    question_type: String,
    answer_type: String,
    answers: Vec<Person>,
}

/// VQAv2's scores in percent, with two decimals.
#[derive(Debug, Clone, PartialEq)]
pub struct VqaV2Scores {
    /// Id of each question with its answer as it is scored, and its score from 0 to 1.
    pub items: Vec<(String, String, f64)>,
    /// Of all questions.
    pub overall: f64,
    /// By the words that a question begins with.
    pub by_question: BTreeMap<String, f64>,
    /// By the kind of answer.
    pub by_answer: BTreeMap<String, f64>,
}

/// VQAv2's scores for the questions that were asked and that the annotations tell of, of answers in `form`. A missing answer is an
/// empty one, as in the upload.
///
/// # Errors
/// [`LlavaError`] where they tell of none.
pub fn vqav2(scored: &Scored<'_>, form: fn(&str) -> String) -> Result<VqaV2Scores, LlavaError> {
    let path = scored.annotations.only(&["v2_mscoco_*_annotations.json"])?;
    let data: VqaV2 = read_json(&path)?;
    let answers = scored.answers_by_id();
    let asked: BTreeSet<String> =
        scored.questions.all.iter().map(|question| question.id.to_string()).collect();
    let mut items = Vec::new();
    let mut groups: [BTreeMap<String, Vec<f64>>; 3] = Default::default();
    for row in data.annotations {
        let id = row.question_id.to_string();
        if !asked.contains(&id) {
            continue;
        }
        let answer = form(answers.get(&id).map_or("", |answer| answer.text.as_str()));
        let score = vqav2_score(&answer, &texts(&row.answers));
        for (group, name) in groups.iter_mut().zip(["", &row.question_type, &row.answer_type]) {
            group.entry(name.to_owned()).or_default().push(score);
        }
        items.push((id, answer, score));
    }
    let percent = |scores: Vec<f64>| two_decimals(100.0 * scores.iter().sum::<f64>() / scores.len() as f64);
    let [all, by_question, by_answer] = groups.map(|group| {
        group.into_iter().map(|(name, scores)| (name, percent(scores))).collect::<BTreeMap<_, _>>()
    });
    let unknown = || LlavaError::Unknown { path, what: "any question that was asked".to_owned() };
    let overall = all.get("").copied().ok_or_else(unknown)?;
    Ok(VqaV2Scores { items, overall, by_question, by_answer })
}

impl From<VqaV2Scores> for Report {
    fn from(scores: VqaV2Scores) -> Self {
        let items =
            scores.items.into_iter().map(|(id, answer, score)| Item::new(id, answer, score)).collect();
        let overall = BTreeMap::from([("overall".to_owned(), scores.overall)]);
        let splits =
            [("none", overall), ("perQuestionType", scores.by_question), ("perAnswerType", scores.by_answer)];
        Self { items, splits: splits.map(|(name, scores)| (name.to_owned(), scores)).into() }
    }
}

/// The score of VQAv2's official scorer: where all people agree, nothing is made alike.
pub fn vqav2_score(answer: &str, answers: &[String]) -> f64 {
    let flat = answer.replace(['\n', '\t'], " ");
    let flat = text::strip(&flat);
    if answers.iter().all(|other| Some(other) == answers.first()) {
        return soft(flat, answers);
    }
    let plain = |text: &str| words(&punctuation_by(text, Periods::BeforeNoDigit));
    let answers: Vec<String> = answers.iter().map(|answer| plain(answer)).collect();
    soft(&plain(flat), &answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_submitted_in_one_form() {
        for (answer, form) in
            [("The Cat's, toy?", "cat 's toy"), ("3.5", "3.5"), ("5.", "5"), ("None", "0"), (" a\nb ", "b")]
        {
            assert_eq!(submitted(answer), form, "{answer}");
        }
    }

    #[test]
    fn the_question_is_found_in_the_prompt() {
        for (prompt, question) in [
            ("What?\nAnswer", Some("what?")),
            ("What?\nReference OCR token: a\nAnswer", Some("what?")),
            ("Reference OCR token: a\nWhat?\nAnswer", Some("what?")),
            ("What?", None),
        ] {
            assert_eq!(textvqa_question(prompt).as_deref(), question, "{prompt}");
        }
    }
}
