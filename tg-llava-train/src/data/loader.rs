//! Batches from a data set, and what becomes of samples that cannot be used.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use super::{
    collate::Batch,
    dataset::LlavaDataset,
    error::{DataError, OnBadSample},
    example::{Example, SampleEncoder},
};

/// Reads, encodes and collates samples; may be shared by worker threads.
#[derive(Debug)]
pub struct Loader {
    dataset: LlavaDataset,
    encoder: SampleEncoder,
    on_bad_sample: OnBadSample,
    /// By sample number, so that another epoch does not count a sample again.
    notices: Mutex<BTreeMap<usize, SampleNotice>>,
}

/// What happened to a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was left out.
    Skipped,
    /// It was kept, but nothing is learned from it: all its labels are masked.
    NoTarget,
}

/// A sample that did not contribute, for logs and the summary at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
            return Err(DataError::ImageFolder { folder: folder.clone(), path: dataset.path().to_path_buf() });
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
        self.encoder.encode(&sample, index).map_err(|problem| {
            let id = sample.id.unwrap_or_else(|| format!("#{index}"));
            problem.at(self.dataset.path(), self.dataset.line(index), id)
        })
    }

    /// The samples `indices` as a batch; with [`OnBadSample::Skip`] it may hold fewer of them, or none.
    ///
    /// # Errors
    /// [`DataError`] of the first sample that cannot be used, unless such samples are skipped; and, skipped or
    /// not, where the data file itself cannot be read any more or has no such sample.
    pub fn batch(&self, indices: &[usize]) -> Result<Batch, DataError> {
        let mut examples = Vec::with_capacity(indices.len());
        for &index in indices {
            match self.example(index) {
                Ok(example) => {
                    if !example.has_target() {
                        self.notice_no_target(&example);
                    }
                    examples.push(example);
                }
                Err(error @ DataError::Sample { .. }) if self.on_bad_sample == OnBadSample::Skip => {
                    self.notice(index, Outcome::Skipped, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Batch { examples })
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
        let (path, line) = (self.dataset.path().display(), self.dataset.line(example.index));
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
