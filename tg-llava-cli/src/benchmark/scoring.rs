//! What answers are worth, by harness.

use std::path::Path;

use anyhow::anyhow;
use tg_llava_benchmarks::judge::{Judge, JudgeTask, TableRows};
use tg_llava_benchmarks::llava::upload::{self, Upload};
use tg_llava_benchmarks::llava::{self, Annotations, Benchmark, LlavaError, bench::Reviewed};
use tg_llava_benchmarks::report::{Outcome, Report, score};
use tg_llava_benchmarks::score::Predictions;

use super::judge::About;
use super::questions::Questions;
use super::{RulesArg, ScoringArgs, input};
use crate::console::Console;
use crate::failure::Failure;

/// Answers as a harness has them.
#[derive(Debug)]
pub enum Answers {
    /// VLMEvalKit's, by index.
    Kit(Predictions),
    /// LLaVA's, in their order.
    Llava(llava::Answers),
}

impl Answers {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Self::Kit(predictions) => predictions.len(),
            Self::Llava(answers) => answers.all.len(),
        }
    }
}

/// What answers came to.
#[derive(Debug)]
pub struct Scoring {
    /// `scored`, or why not.
    pub state: String,
    /// The scores, where there are any.
    pub report: Option<Report>,
    /// What a server is sent.
    pub uploads: Vec<Upload>,
}

/// Why there are no scores.
#[derive(Debug)]
pub enum ScoringError {
    /// Questions, answers and annotations of LLaVA's.
    Llava(LlavaError),
    /// Anything else.
    Failure(Failure),
}

impl ScoringError {
    /// Whether answers are as good as ever, and what is missing is something to score them with, or some of them.
    pub fn leaves_answers(&self) -> bool {
        use LlavaError::{Missing, NoQuestions, Question, Unanswered, Unknown, Unnamed};
        matches!(
            self,
            Self::Llava(
                Missing { .. }
                    | NoQuestions { .. }
                    | Question { .. }
                    | Unanswered { .. }
                    | Unknown { .. }
                    | Unnamed { .. }
            )
        )
    }
}

impl From<LlavaError> for ScoringError {
    fn from(error: LlavaError) -> Self {
        Self::Llava(error)
    }
}

impl From<Failure> for ScoringError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<ScoringError> for Failure {
    fn from(error: ScoringError) -> Self {
        match error {
            ScoringError::Llava(error @ LlavaError::Missing { .. }) => {
                input(anyhow!("{error}; name the file, or the folder that it is in, with --annotations"))
            }
            ScoringError::Llava(error @ LlavaError::Unnamed { .. }) => {
                input(anyhow!("{error}; name it with --benchmark: {}", Benchmark::CALLED.join(", ")))
            }
            ScoringError::Llava(error) => input(error),
            ScoringError::Failure(failure) => failure,
        }
    }
}

/// Where a run's files are.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The data set.
    pub data: &'a Path,
    /// The folder that replies of a judge are kept in.
    pub replies: &'a Path,
}

impl ScoringArgs {
    /// Fails where an option has no effect on the scores of `questions`.
    ///
    /// # Errors
    /// [`Failure::Input`] that names it.
    pub fn check(&self, questions: &Questions) -> Result<(), Failure> {
        let (is_kit, takes_judge) = match questions {
            Questions::Kit { kind, .. } => (true, JudgeTask::of(*kind).is_some()),
            Questions::Llava { questions, .. } => (false, questions.benchmark == Some(Benchmark::LlavaBench)),
        };
        let idle = match () {
            () if is_kit && !self.annotations.is_empty() => {
                "--annotations: with --harness vlmevalkit the right answers are those in the table"
            }
            () if !is_kit && self.rules != RulesArg::Current => {
                "--rules: with --harness llava there is one set of rules, that of its scripts"
            }
            () if !takes_judge && self.judge.judge_url.is_some() => {
                "--judge-url: no judge scores this benchmark"
            }
            () if !takes_judge && self.judge.judge_replies.is_some() => {
                "--judge-replies: no judge scores this benchmark"
            }
            () => return Ok(()),
        };
        Err(Failure::input(format_args!("{idle}; leave it out")))
    }

    /// Scores `answers` to all `questions`.
    ///
    /// # Errors
    /// [`ScoringError`] where files cannot be used or do not belong together, and where a judge does not reply.
    pub fn score(
        &self,
        questions: &Questions,
        answers: &Answers,
        places: Places<'_>,
        console: &Console,
    ) -> Result<Scoring, ScoringError> {
        let (outcome, uploads) = match (questions, answers) {
            (Questions::Kit { table, kind, .. }, Answers::Kit(predictions)) => {
                let rows = TableRows { table, kind: *kind, predictions };
                let mut scored = |judge: Option<&mut dyn Judge>| {
                    Ok(score(table, *kind, predictions, self.rules.into(), judge).map_err(input)?)
                };
                let outcome = match JudgeTask::of(*kind) {
                    None => scored(None)?,
                    Some(task) => {
                        let about = About { rows: &rows, task };
                        self.judge.judged(about, places.replies, console, &mut scored)?
                    }
                };
                (outcome, Vec::new())
            }
            (Questions::Llava { questions, .. }, Answers::Llava(answers)) => {
                let annotations = Annotations::new(&self.annotations, places.data);
                let scored = llava::Scored::new(questions, answers, &annotations)?;
                (self.score_llava(&scored, places, console)?, upload::files(&scored)?)
            }
            _ => return Err(Failure::input("these answers are of another harness").into()),
        };
        let (state, report) = match outcome {
            Outcome::Scored(mut report) => {
                // A mean of nothing is no score.
                report.splits.values_mut().for_each(|scores| scores.retain(|_, score| score.is_finite()));
                ("scored", Some(report))
            }
            Outcome::NotJudged => ("not judged", None),
            Outcome::NoAnswers if uploads.is_empty() => ("no answers", None),
            Outcome::NoAnswers => ("not scored; its server scores the upload", None),
        };
        Ok(Scoring { state: state.to_owned(), report, uploads })
    }

    fn score_llava(
        &self,
        scored: &llava::Scored<'_>,
        places: Places<'_>,
        console: &Console,
    ) -> Result<Outcome, ScoringError> {
        if scored.questions.benchmark != Some(Benchmark::LlavaBench) {
            return Ok(scored.score(None)?);
        }
        let rows = match Reviewed::new(scored) {
            Err(LlavaError::Missing { .. }) if !self.judge.is_asked() => return Ok(Outcome::NotJudged),
            rows => rows?,
        };
        let about = About { rows: &rows, task: JudgeTask::LlavaBench };
        self.judge.judged(about, places.replies, console, &mut |judge| Ok(scored.score(judge)?))
    }

    /// Scores empty answers to `questions`, so that what keeps answers from being scored shows before they are there: why they will not
    /// be, if so.
    ///
    /// # Errors
    /// [`Failure::Input`] where the data set lacks a column, or annotations cannot be read.
    pub fn foresee(&self, questions: &Questions, data: &Path) -> Result<Option<String>, Failure> {
        let found = match (questions, questions.answers(data, |_| Some(""))) {
            (Questions::Kit { table, kind, .. }, Answers::Kit(predictions)) => {
                let scored = score(table, *kind, &predictions, self.rules.into(), None);
                scored.map(drop).map_err(|error| ScoringError::Failure(input(error)))
            }
            (Questions::Llava { questions, .. }, Answers::Llava(answers)) => {
                let annotations = Annotations::new(&self.annotations, data);
                let scored = llava::Scored::new(questions, &answers, &annotations);
                scored.and_then(|scored| scored.score(None)).map(drop).map_err(Into::into)
            }
            _ => Ok(()),
        };
        let is_meant = |error: &ScoringError| {
            matches!(error, ScoringError::Llava(LlavaError::Unknown { .. })) && !self.lacks_annotations(error)
        };
        match found {
            Err(error) if error.leaves_answers() && !is_meant(&error) => Ok(Failure::from(error).message()),
            found => Ok(found.map(|()| None)?),
        }
    }

    /// What answers come to that are not scored because of `error`: what a server is sent.
    ///
    /// # Errors
    /// [`Failure::Input`] where files cannot be used.
    pub fn not_scored(
        &self,
        error: ScoringError,
        questions: &Questions,
        answers: &Answers,
        data: &Path,
    ) -> Result<Scoring, Failure> {
        let reason = Failure::from(error).message().unwrap_or_default();
        let uploads = match (questions, answers) {
            (Questions::Llava { questions, .. }, Answers::Llava(answers)) => {
                let annotations = Annotations::new(&self.annotations, data);
                let scored = llava::Scored::new(questions, answers, &annotations).map_err(input)?;
                upload::files(&scored).map_err(input)?
            }
            _ => Vec::new(),
        };
        Ok(Scoring { state: format!("not scored: {reason}"), report: None, uploads })
    }

    /// Whether there are no annotations of the questions that were asked. What lies beside the data set may be of another split; what
    /// `--annotations` names is meant.
    pub fn lacks_annotations(&self, error: &ScoringError) -> bool {
        use LlavaError::{Missing, Unknown};
        match error {
            ScoringError::Llava(Missing { .. }) => true,
            ScoringError::Llava(Unknown { .. }) => self.annotations.is_empty(),
            _ => false,
        }
    }
}
