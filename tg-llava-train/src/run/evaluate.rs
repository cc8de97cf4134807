//! How well a model does on samples that it has not seen: loss, and answers that equal the expected ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tg_llava_core::generate::{BeamOptions, Event, RequestId};
use tg_llava_core::model::TgLlava;

use super::RunError;
use super::ask::Asking;
use crate::data::{DataError, Loader};
use crate::engine::{ModelInput, scalar};

/// How a model is checked.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// Samples at once.
    pub batch_size: usize,
    /// Whether the loss is computed.
    pub loss: bool,
    /// Longest generated answer in tokens; `None` where no answers are generated.
    pub max_new_tokens: Option<usize>,
    /// How the most probable answers are searched for; `None` takes the most probable next token.
    pub beams: Option<BeamOptions>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Samples that were answered, or looked at where no answers are generated.
    pub samples: usize,
    /// Mean cross-entropy over all supervised tokens.
    pub loss: Option<f64>,
    /// Answers that equal the expected ones, white space around them aside.
    pub correct: Option<usize>,
    /// Each sample's answer, where answers were generated.
    #[serde(skip)]
    pub predictions: Vec<Prediction>,
    /// Samples that could not be checked, wholly or in part, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<SampleFailure>,
    /// Of each batch the bits of the sum of its cross-entropies, which JSON could not tell where it is not finite, and over how many
    /// tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    batches: Vec<(u64, usize)>,
}

impl Evaluation {
    /// What came of parts that took the batches in turns: part `p` of `n` the batches `p`, `n + p`, and so on.
    pub fn of_parts(parts: Vec<Self>) -> Self {
        let mut whole = Self::default();
        let longest = parts.iter().map(|part| part.batches.len()).max().unwrap_or(0);
        for batch in 0..longest {
            whole.batches.extend(parts.iter().filter_map(|part| part.batches.get(batch)));
        }
        for part in parts {
            whole.samples += part.samples;
            whole.correct = whole.correct.or(part.correct.map(|_| 0));
            whole.correct = whole.correct.map(|sum| sum + part.correct.unwrap_or(0));
            whole.predictions.extend(part.predictions);
            whole.failures.extend(part.failures);
        }
        whole.failures.sort_by_key(|failure| failure.index);
        whole.loss = mean(&whole.batches);
        whole
    }

    /// Share of answers that equal the expected ones.
    pub fn exact_match(&self) -> Option<f64> {
        self.correct.map(|correct| correct as f64 / self.samples.max(1) as f64)
    }
}

/// One generated answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// The sample's id.
    pub id: String,
    /// The question.
    pub question: String,
    /// What the data set has as the answer.
    pub expected: String,
    /// What the model answered.
    pub answer: String,
}

/// A sample that could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleFailure {
    /// Its number in the data set.
    pub index: usize,
    /// Its id.
    pub id: String,
    /// Why, with the data file and the line.
    pub message: String,
}

/// What a check tells while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A sample's answer, in the order of the samples.
    Answered(&'a Prediction),
    /// A sample that could not be checked.
    Failed(&'a SampleFailure),
    /// So many more samples are done.
    Done(usize),
}

/// Checks `model`, which must be on a device that does not record gradients, on samples of `loader`. A sample that
/// cannot be used is noted in the result, whatever the loader does about such samples, and the others go on.
/// `watch` is told what comes; where it returns false, the check ends with that batch.
///
/// # Errors
/// Where the data file cannot be read any more, or the model cannot compute a loss.
pub fn evaluate(
    model: &TgLlava,
    loader: &Loader,
    indices: &[usize],
    options: &EvaluateOptions,
    watch: &mut dyn FnMut(Progress<'_>) -> bool,
) -> Result<Evaluation, RunError> {
    let asking =
        options.max_new_tokens.map(|budget| Asking::new(model, loader.encoder(), budget, options.beams));
    let result = Evaluation::default();
    let mut check = Check { model, loader, asking, result, watch, told: 0, goes_on: true };
    for batch in indices.chunks(options.batch_size.max(1)) {
        if options.loss {
            let (sum, count) = check.loss(batch)?;
            check.result.batches.push((sum.to_bits(), count));
        }
        check.answer(batch)?;
        check.tell_failures();
        check.tell(|_| Progress::Done(batch.len()));
        if !check.goes_on {
            break;
        }
    }
    let mut result = check.result;
    if options.loss {
        result.loss = mean(&result.batches);
    }
    if options.max_new_tokens.is_none() {
        result.samples -= result.failures.len();
    } else {
        result.samples = result.predictions.len();
        let right = |p: &&Prediction| p.answer.trim() == p.expected.trim();
        result.correct = Some(result.predictions.iter().filter(right).count());
    }
    Ok(result)
}

/// Mean cross-entropy over all tokens of some batches; `None` where there is no batch.
fn mean(batches: &[(u64, usize)]) -> Option<f64> {
    let (sum, tokens) = batches
        .iter()
        .fold((0.0, 0), |(sum, tokens), (bits, count)| (sum + f64::from_bits(*bits), tokens + count));
    (!batches.is_empty()).then(|| if tokens > 0 { sum / tokens as f64 } else { f64::NAN })
}

struct Check<'a> {
    model: &'a TgLlava,
    loader: &'a Loader,
    /// `None` where no answers are generated.
    asking: Option<Asking<'a>>,
    result: Evaluation,
    watch: &'a mut dyn FnMut(Progress<'_>) -> bool,
    /// Failures that were told of.
    told: usize,
    goes_on: bool,
}

impl Check<'_> {
    /// Sum of the cross-entropies of a batch, and over how many tokens.
    fn loss(&mut self, indices: &[usize]) -> Result<(f64, usize), RunError> {
        let mut examples = Vec::with_capacity(indices.len());
        for &index in indices {
            let example = match self.loader.example(index) {
                Ok(example) => example,
                Err(DataError::Sample { id, problem, .. }) => {
                    self.fail(index, &id, &problem);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match self.loader.teaches(&example, self.model.config()) {
                Ok(true) => examples.push(example),
                Ok(false) => self.fail(index, &example.id, &"no answer to learn, so it has no loss"),
                Err(DataError::Sample { id, problem, .. }) => self.fail(index, &id, &problem),
                Err(error) => return Err(error.into()),
            }
        }
        let micro = self.loader.collate(examples, self.model.config())?;
        if micro.is_empty() {
            return Ok((0.0, 0));
        }
        let count = micro.supervised();
        let loss = scalar(self.model.loss(&micro.batch.on_device(self.model))?)?;
        Ok((loss * count as f64, count))
    }

    /// Answers the last question of each sample, all at once. Pictures that samples share are looked at once.
    fn answer(&mut self, indices: &[usize]) -> Result<(), RunError> {
        let Some(mut asking) = self.asking.take() else {
            self.result.samples += indices.len();
            return Ok(());
        };
        let mut asked: BTreeMap<RequestId, (usize, Prediction)> = BTreeMap::new();
        for &index in indices {
            let sample = match self.loader.dataset().sample(index) {
                Ok(sample) => sample,
                Err(DataError::Sample { id, problem, .. }) => {
                    self.fail(index, &id, &problem);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match asking.ask(&sample) {
                Ok((request, prediction)) => {
                    asked.insert(request, (index, prediction));
                }
                Err(reason) => self.fail(index, &sample.id, &reason),
            }
        }
        while !asking.engine.is_empty() {
            for event in asking.engine.step() {
                match event {
                    Event::Token { request, text, .. } | Event::Finished { request, text, .. } => {
                        if let Some((_, prediction)) = asked.get_mut(&request) {
                            prediction.answer += &text;
                        }
                    }
                    Event::Failed { request, error } => {
                        if let Some((index, prediction)) = asked.remove(&request) {
                            self.fail(index, &prediction.id, &error);
                        }
                    }
                }
            }
        }
        asking.forget_files();
        self.asking = Some(asking);
        // Requests are numbered in the order of the samples.
        for (_, mut prediction) in asked.into_values() {
            prediction.answer.truncate(prediction.answer.trim_end().len());
            self.result.predictions.push(prediction);
            self.tell(|result| Progress::Answered(&result.predictions[result.predictions.len() - 1]));
        }
        Ok(())
    }

    /// Notes a sample that cannot be checked: once, with every reason.
    fn fail(&mut self, index: usize, id: &str, reason: &dyn std::fmt::Display) {
        if let Some(known) = self.result.failures.iter_mut().rev().find(|failure| failure.index == index) {
            let reason = reason.to_string();
            if !known.message.contains(&reason) {
                known.message += &format!("; {reason}");
            }
            return;
        }
        let (path, line) = (self.loader.dataset().path(index).display(), self.loader.dataset().line(index));
        let message = format!("{path}, line {line}, sample {id}: {reason}");
        self.result.failures.push(SampleFailure { index, id: id.to_owned(), message });
    }

    fn tell_failures(&mut self) {
        while self.told < self.result.failures.len() {
            let number = self.told;
            self.tell(|result| Progress::Failed(&result.failures[number]));
            self.told += 1;
        }
    }

    fn tell<'p>(&'p mut self, what: impl FnOnce(&'p Evaluation) -> Progress<'p>) {
        let goes_on = (self.watch)(what(&self.result));
        self.goes_on &= goes_on;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_a_whole_even_where_a_loss_is_not_finite() {
        let part = |batches: &[(f64, usize)], failed: &[usize]| {
            let failure = |&index: &usize| SampleFailure { index, id: String::new(), message: String::new() };
            let part = Evaluation {
                samples: 2,
                correct: Some(1),
                failures: failed.iter().map(failure).collect(),
                batches: batches.iter().map(|(sum, count)| (sum.to_bits(), *count)).collect(),
                ..Evaluation::default()
            };
            let json = serde_json::to_string(&part).unwrap();
            serde_json::from_str::<Evaluation>(&json).unwrap()
        };
        let whole = Evaluation::of_parts(vec![part(&[(1.0, 2), (4.0, 1)], &[7]), part(&[(2.0, 3)], &[3])]);
        assert_eq!((whole.samples, whole.correct, whole.loss), (4, Some(2), Some(7.0 / 6.0)));
        assert_eq!(whole.batches.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 3, 1]);
        assert_eq!(whole.failures.iter().map(|f| f.index).collect::<Vec<_>>(), [3, 7]);
        assert!(Evaluation::of_parts(vec![part(&[(f64::NAN, 2)], &[])]).loss.unwrap().is_nan());
    }
}
