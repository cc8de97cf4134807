//! Batches from a data set, and what becomes of samples that cannot be used.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tg_llava_core::{
    config::{GuidePadding, ModelConfig},
    conversation::LabelNote,
    text::GuideInput,
    tokenizer::GuideTokenizer,
};

use super::{
    dataset::LlavaDataset,
    error::{DataError, OnBadSample, SampleProblem},
    example::{Example, SampleEncoder},
    micro::{self, Micro},
};

/// Reads and encodes samples, and makes micro-batches of them; may be shared by worker threads.
#[derive(Debug)]
pub struct Loader {
    dataset: LlavaDataset,
    encoder: SampleEncoder,
    on_bad_sample: OnBadSample,
    /// By sample number, so that another epoch does not count a sample again.
    notices: Mutex<BTreeMap<usize, SampleNotice>>,
}

/// What happened to a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was left out.
    Skipped,
    /// It was kept, but nothing is learned from it: all its labels are masked.
    NoTarget,
}

/// A sample that did not contribute, for logs and the summary at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleNotice {
    /// What happened to it.
    pub outcome: Outcome,
    /// Why, with the data file, the line, the sample's id and the picture's file.
    pub message: String,
}

impl Loader {
    /// A loader over `dataset`.
    ///
    /// # Errors
    /// [`DataError::ImageFolder`] where there are samples with pictures but no folder of pictures.
    pub fn new(
        dataset: LlavaDataset,
        encoder: SampleEncoder,
        on_bad_sample: OnBadSample,
    ) -> Result<Self, DataError> {
        let folder = &encoder.options.image_folder;
        if !folder.is_dir() && (0..dataset.len()).any(|index| dataset.has_image(index)) {
            return Err(DataError::ImageFolder {
                folder: folder.clone(),
                path: dataset.path(0).to_path_buf(),
            });
        }
        Ok(Self { dataset, encoder, on_bad_sample, notices: Mutex::default() })
    }

    /// The samples.
    pub fn dataset(&self) -> &LlavaDataset {
        &self.dataset
    }

    /// What encodes them.
    pub fn encoder(&self) -> &SampleEncoder {
        &self.encoder
    }

    /// Sample `index`, encoded; the policy on bad samples plays no part here.
    ///
    /// # Errors
    /// [`DataError`] where the sample cannot be used.
    pub fn example(&self, index: usize) -> Result<Example, DataError> {
        let sample = self.dataset.sample(index)?;
        let encoded = self.encoder.encode(&sample, index);
        encoded.map_err(|problem| problem.at(self.dataset.path(index), self.dataset.line(index), sample.id))
    }

    /// Whether `model` can learn anything from `example`.
    ///
    /// # Errors
    /// [`DataError::Sample`] where the example does not fit the model, or all that it teaches is cut off.
    pub fn teaches(&self, example: &Example, model: &ModelConfig) -> Result<bool, DataError> {
        self.fits(example, model).map_err(|problem| self.at(example, problem))
    }

    fn fits(&self, example: &Example, model: &ModelConfig) -> Result<bool, SampleProblem> {
        let (plan, targets) = micro::plan(&[example.row(0)], model)?;
        if targets.tokens.is_empty() {
            let cut_text = example.notes.iter().map(|note| match note {
                LabelNote::Cut { ids } => *ids,
                _ => 0,
            });
            let cut = plan.truncated.iter().copied().chain(cut_text).sum::<usize>();
            return match cut {
                0 => Ok(false),
                _ => Err(SampleProblem::Behind { tokens: plan.len() + cut, max_length: model.max_length }),
            };
        }
        let text = model.multimodal.as_ref().and_then(|mm| mm.text.as_ref());
        if let Some(text) = text.filter(|_| !example.pictures.is_empty()) {
            let guide = std::slice::from_ref(&example.guide_ids);
            GuideInput::new(guide, self.guide_pad(), GuidePadding::Masked, text)?;
        }
        Ok(true)
    }

    /// The samples `indices` as a micro-batch for `model`. Samples with nothing to learn are left out and noted; with
    /// [`OnBadSample::Skip`] bad ones too.
    ///
    /// # Errors
    /// [`DataError`] of the first sample that cannot be used, unless such samples are skipped; and, skipped or
    /// not, where the data file itself cannot be read any more or has no such sample.
    pub fn micro(&self, indices: &[usize], model: &ModelConfig) -> Result<Micro, DataError> {
        let mut examples = Vec::with_capacity(indices.len());
        for &index in indices {
            let found = self.example(index).and_then(|example| Ok((self.teaches(&example, model)?, example)));
            match found {
                Ok((true, example)) => examples.push(example),
                Ok((false, example)) => self.notice_no_target(&example),
                Err(error @ DataError::Sample { .. }) if self.on_bad_sample == OnBadSample::Skip => {
                    self.notice(index, Outcome::Skipped, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        self.collate(examples, model)
    }

    /// The micro-batch of `examples`, which [`Self::teaches`] approved.
    ///
    /// # Errors
    /// [`DataError`] where an example does not fit the model.
    pub fn collate(&self, examples: Vec<Example>, model: &ModelConfig) -> Result<Micro, DataError> {
        Ok(Micro::new(examples, self.guide_pad(), model)?)
    }

    fn guide_pad(&self) -> i64 {
        self.encoder.guide.as_ref().map_or(0, GuideTokenizer::pad_id)
    }

    fn at(&self, example: &Example, problem: SampleProblem) -> DataError {
        let (path, line) = (self.dataset.path(example.index), self.dataset.line(example.index));
        problem.at(path, line, &example.id)
    }

    /// Every sample so far that was left out or taught nothing: first those that were rejected when the file
    /// was opened, then the others by their numbers.
    pub fn notices(&self) -> Vec<SampleNotice> {
        let rejected = self.dataset.rejected().iter();
        let rejected =
            rejected.map(|error| SampleNotice { outcome: Outcome::Skipped, message: error.to_string() });
        let met = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        rejected.chain(met.values().cloned()).collect()
    }

    fn notice_no_target(&self, example: &Example) {
        let (path, line) = (self.dataset.path(example.index).display(), self.dataset.line(example.index));
        let id = &example.id;
        let message =
            format!("{path}, line {line}, sample {id}: nothing to learn; its notes: {:?}", example.notes);
        self.notice(example.index, Outcome::NoTarget, message);
    }

    fn notice(&self, index: usize, outcome: Outcome, message: String) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.entry(index).or_insert(SampleNotice { outcome, message });
    }
}

#[cfg(test)]
mod tests;
