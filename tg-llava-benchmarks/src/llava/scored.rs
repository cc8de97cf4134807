//! One way to score any of LLaVA's benchmarks.

use std::collections::BTreeMap;

use super::{
    Annotations, Answer, Answers, Benchmark, LlavaError, Question, Questions, bench, choice, gqa, mme, pope,
    seed, vqa,
};
use crate::judge::Judge;
use crate::report::{Item, Outcome, Report};
use crate::score::short::ShortItem;

/// Questions with their answers, and where the right ones are.
#[derive(Debug, Clone)]
pub struct Scored<'a> {
    /// What was asked.
    pub questions: &'a Questions,
    /// What was answered, in the order of the questions: a run that went on has what it asked again at the file's end.
    pub answers: Vec<&'a Answer>,
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
        answers: &'a Answers,
        annotations: &'a Annotations,
    ) -> Result<Self, LlavaError> {
        let of_questions = questions.answered(answers)?;
        let answers = of_questions.iter().copied().flatten().collect();
        Ok(Self { questions, answers, annotations, of_questions })
    }

    /// Scores the answers as the benchmark's script does. Those of MMBench and MM-Vet are for a server.
    ///
    /// # Errors
    /// [`LlavaError`] where the benchmark is not known, where a question has no answer and the script needs one, and where the annotations cannot be used, or are of
    /// another split.
    pub fn score(&self, judge: Option<&mut dyn Judge>) -> Result<Outcome, LlavaError> {
        let Questions { file, benchmark, all, .. } = self.questions;
        let Some(benchmark) = *benchmark else { return Err(LlavaError::Unnamed { file: file.clone() }) };
        if !benchmark.allows_gaps()
            && let Some((question, _)) =
                all.iter().zip(&self.of_questions).find(|(_, answer)| answer.is_none())
        {
            let (file, place, id) = (file.clone(), question.place.clone(), question.id.clone());
            return Err(LlavaError::Unanswered { file, place, id });
        }
        let report = match benchmark {
            Benchmark::MmBench(_) | Benchmark::MmVet => return Ok(Outcome::NoAnswers),
            Benchmark::Pope => pope::score(self)?,
            Benchmark::Mme => mme::score(self)?,
            Benchmark::TextVqa => accuracy(vqa::textvqa(self)?),
            Benchmark::VizWiz => accuracy(vqa::vizwiz(self)?),
            Benchmark::VqaV2 => vqa::vqav2(self, vqa::submitted)?.into(),
            Benchmark::Gqa => gqa::score(self)?,
            Benchmark::ScienceQa => choice::score(self)?,
            Benchmark::Seed => seed::score(self)?,
            Benchmark::LlavaBench => match judge {
                None => return Ok(Outcome::NotJudged),
                Some(judge) => bench::Reviewed::new(self)?.score(judge),
            },
        };
        Ok(Outcome::Scored(report))
    }

    /// Questions that have an answer, with it, in their order.
    pub(super) fn answered(&self) -> impl Iterator<Item = (&'a Question, &'a Answer)> + '_ {
        let asked = self.questions.all.iter().zip(&self.of_questions);
        asked.filter_map(|(question, answer)| Some((question, (*answer)?)))
    }

    /// Answers by the ids of their questions; of those with the same, the last, as in the scripts.
    pub(super) fn answers_by_id(&self) -> BTreeMap<String, &'a Answer> {
        self.answers.iter().map(|&answer| (answer.question_id.to_string(), answer)).collect()
    }
}

/// A report of soft accuracies, whose mean is a share.
fn accuracy(items: Vec<ShortItem>) -> Report {
    let scores: Vec<f64> = items.iter().map(|item| item.score).collect();
    let all =
        [("samples".to_owned(), scores.len() as f64), ("accuracy".to_owned(), crate::score::mean(&scores))];
    Report::of_one(items.into_iter().map(|item| Item::new(item.index, item.normal, item.score)), all)
}
