//! One way to score any of LLaVA's benchmarks.

use std::collections::BTreeMap;

use super::{
    Annotations, Answer, Benchmark, LlavaError, Question, Questions, bench, choice, gqa, mme, pope, seed, vqa,
};
use crate::judge::Judge;
use crate::report::{Item, Outcome, Report};
use crate::score::short::ShortItem;

/// Questions with their answers, and where the right ones are.
#[derive(Debug, Clone)]
pub struct Scored<'a> {
    /// What was asked.
    pub questions: &'a Questions,
    /// What was answered, in the order of the file.
    pub answers: &'a [Answer],
    /// What is right.
    pub annotations: &'a Annotations,
    /// The answer to each question.
    pub of_questions: Vec<Option<&'a Answer>>,
}

impl<'a> Scored<'a> {
    /// Puts them together.
    ///
    /// # Errors
    /// [`LlavaError`] where answers belong to no question.
    pub fn new(
        questions: &'a Questions,
        answers: &'a [Answer],
        annotations: &'a Annotations,
    ) -> Result<Self, LlavaError> {
        Ok(Self { questions, answers, annotations, of_questions: questions.answered(answers)? })
    }

    /// Scores the answers as the benchmark's script does. Those of MMBench and MM-Vet are for a server, and so are those of a benchmark
    /// that is not known.
    ///
    /// # Errors
    /// [`LlavaError`] where a question has no answer and the script needs one, and where the annotations cannot be used, or are of
    /// another split.
    pub fn score(&self, judge: Option<&mut dyn Judge>) -> Result<Outcome, LlavaError> {
        let Questions { file, benchmark, all, .. } = self.questions;
        if !benchmark.is_some_and(Benchmark::allows_gaps)
            && let Some((question, _)) =
                all.iter().zip(&self.of_questions).find(|(_, answer)| answer.is_none())
        {
            let (file, line, id) = (file.clone(), question.line, question.id.clone());
            return Err(LlavaError::Unanswered { file, line, id });
        }
        let report = match self.questions.benchmark {
            None | Some(Benchmark::MmBench(_) | Benchmark::MmVet) => return Ok(Outcome::NoAnswers),
            Some(Benchmark::Pope) => pope::score(self)?,
            Some(Benchmark::Mme) => mme::score(self)?,
            Some(Benchmark::TextVqa) => accuracy(vqa::textvqa(self)?),
            Some(Benchmark::VizWiz) => accuracy(vqa::vizwiz(self)?),
            Some(Benchmark::VqaV2) => vqa::vqav2(self, vqa::submitted)?.into(),
            Some(Benchmark::Gqa) => gqa::score(self)?,
            Some(Benchmark::ScienceQa) => choice::score(self)?,
            Some(Benchmark::Seed) => seed::score(self)?,
            Some(Benchmark::LlavaBench) => match judge {
                None => return Ok(Outcome::NotJudged),
                Some(judge) => bench::Reviewed::new(self)?.score(judge),
            },
        };
        Ok(Outcome::Scored(report))
    }

    /// Questions by their ids; of those with the same, one.
    pub(super) fn questions_by_id(&self) -> BTreeMap<String, &'a Question> {
        self.questions.all.iter().map(|question| (question.id.to_string(), question)).collect()
    }

    /// Answers by the ids of their questions; of those with the same, the last, as in the scripts.
    pub(super) fn answers_by_id(&self) -> BTreeMap<String, &'a Answer> {
        self.answers.iter().map(|answer| (answer.question_id.to_string(), answer)).collect()
    }
}

/// A report of soft accuracies, whose mean is a share.
fn accuracy(items: Vec<ShortItem>) -> Report {
    let scores: Vec<f64> = items.iter().map(|item| item.score).collect();
    let all =
        [("samples".to_owned(), scores.len() as f64), ("accuracy".to_owned(), crate::score::mean(&scores))];
    Report::of_one(items.into_iter().map(|item| Item::new(item.index, item.normal, item.score)), all)
}
