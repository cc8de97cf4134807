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
mod tests {
    use super::*;
    use crate::data::{EncodeOptions, EpochBatches, Prefetch, SampleProblem, Shard};
    use std::{
        fs,
        path::{Path, PathBuf},
        sync::Arc,
    };
    use tg_llava_core::{
        conversation::{LabelNote, Template},
        multimodal::IMAGE_TOKEN_INDEX,
        preprocess::ImageProcessor,
        tokenizer::{GuideTokenizer, TextTokenizer},
    };

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
    }

    fn encoder(max_length: usize) -> SampleEncoder {
        let tokenizers = fixtures().join("conversations/tokenizers");
        let template = Template::for_version("v1");
        SampleEncoder {
            tokenizer: TextTokenizer::from_dir(tokenizers.join("llama")).unwrap(),
            guide: Some(GuideTokenizer::from_dir(tokenizers.join("clip"), None).unwrap()),
            images: ImageProcessor::clip(14),
            options: EncodeOptions::new(template, fixtures().join("preprocess/images"), max_length),
        }
    }

    fn loader(json: &str, max_length: usize, on_bad_sample: OnBadSample) -> Loader {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), json).unwrap();
        let dataset = LlavaDataset::open(file.path(), on_bad_sample).unwrap();
        Loader::new(dataset, encoder(max_length), on_bad_sample).unwrap()
    }

    fn line(id: &str, images: &[&str], question: &str) -> String {
        let turns = serde_json::json!([
            { "from": "human", "value": question }, { "from": "gpt", "value": "An answer." },
        ]);
        format!("{}\n", serde_json::json!({ "id": id, "image": images, "conversations": turns }))
    }

    #[test]
    fn pictures_and_text_come_out_as_they_went_in() {
        let json = line("p", &["photo_b.png"], "<image>\nWhat?") + &line("t", &[], "Why?");
        let batch = loader(&json, 2048, OnBadSample::Error).batch(&[1, 0]).unwrap();
        let [text, picture] = &batch.examples[..] else { panic!("two samples") };
        assert_eq!((text.id.as_str(), text.pictures.len()), ("t", 0));
        assert_eq!((picture.id.as_str(), picture.pictures.len()), ("p", 1));
        assert_eq!(picture.pictures[0].crops.len(), 4 * 3 * 14 * 14);
        assert_eq!(picture.input_ids.iter().filter(|&&id| id == IMAGE_TOKEN_INDEX).count(), 1);
        assert!(text.has_target() && picture.has_target());
    }

    #[test]
    fn a_cut_sample_keeps_the_pictures_whose_place_is_left() {
        let json = line("p", &["photo_b.png"], "<image>\nWhat?");
        let whole = loader(&json, 2048, OnBadSample::Error).example(0).unwrap();
        let place = whole.input_ids.iter().position(|&id| id == IMAGE_TOKEN_INDEX).unwrap();
        for (length, pictures) in [(place, 0), (place + 1, 1)] {
            let loader = loader(&json, length, OnBadSample::Error);
            let cut = loader.batch(&[0]).unwrap().examples.remove(0);
            assert_eq!(cut.input_ids, whole.input_ids[..length]);
            assert_eq!(cut.pictures, whole.pictures[..pictures]);
            assert!(cut.notes.contains(&LabelNote::Cut { ids: whole.input_ids.len() - length }));
            let notices = loader.notices();
            assert_eq!((notices.len(), notices[0].outcome), (1, Outcome::NoTarget));
        }
    }

    #[test]
    fn a_bad_picture_stops_or_is_skipped_and_counted_once() {
        let json = line("good", &["tiny.png"], "<image>") + &line("lost", &["no_such.png"], "<image>");
        match loader(&json, 2048, OnBadSample::Error).batch(&[0, 1]).unwrap_err() {
            DataError::Sample { id, line: 2, problem, .. } => {
                assert_eq!(id, "lost");
                assert!(matches!(*problem, SampleProblem::Image(_)), "{problem}");
                assert!(problem.to_string().contains("no_such.png"), "{problem}");
            }
            other => panic!("{other}"),
        }
        let loader = loader(&json, 2048, OnBadSample::Skip);
        for _epoch in 0..2 {
            assert_eq!(loader.batch(&[0, 1]).unwrap().examples.len(), 1);
            assert!(loader.batch(&[1]).unwrap().is_empty());
        }
        let notices = loader.notices();
        assert_eq!((notices.len(), notices[0].outcome), (1, Outcome::Skipped));
        assert!(notices[0].message.contains("sample lost") && notices[0].message.contains("no_such.png"));
        // A sample that is not there is the caller's mistake, not a bad sample.
        assert!(matches!(loader.batch(&[7]), Err(DataError::OutOfRange { .. })));
    }

    #[test]
    fn pictures_need_a_folder_and_text_does_not() {
        let open = |json: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), json).unwrap();
            let mut encoder = encoder(99);
            encoder.options.image_folder = "no/such/folder".into();
            let dataset = LlavaDataset::open(file.path(), OnBadSample::Error).unwrap();
            Loader::new(dataset, encoder, OnBadSample::Skip)
        };
        assert!(open(&line("t", &[], "Why?")).is_ok());
        let error = open(&line("p", &["a.png"], "<image>")).unwrap_err();
        assert!(
            matches!(&error, DataError::ImageFolder { folder, .. } if folder.ends_with("folder")),
            "{error}"
        );
    }

    #[test]
    fn threads_change_nothing() {
        let json: String = (0..11)
            .map(|at| line(&at.to_string(), &["tiny.png"][..at % 2], &"<image>"[..at % 2 * 7]))
            .collect();
        let loader = Arc::new(loader(&json, 2048, OnBadSample::Error));
        let batches = || EpochBatches::new((0..11).rev().collect(), 0, 2, Shard::SINGLE);
        let expected: Vec<_> = batches().map(|indices| loader.batch(&indices).unwrap()).collect();
        for (threads, ahead) in [(1, 1), (3, 4), (2, 100)] {
            let found: Vec<_> =
                Prefetch::new(&loader, batches(), threads, ahead).map(Result::unwrap).collect();
            assert_eq!(found, expected);
        }
        // Dropped half way.
        assert!(Prefetch::new(&loader, batches(), 3, 4).nth(1).is_some());
        // An error comes in its place.
        let failing = [vec![0], vec![99], vec![1]].into_iter();
        let found: Vec<_> = Prefetch::new(&loader, failing, 2, 2).map(|batch| batch.is_ok()).collect();
        assert_eq!(found, [true, false, true]);
    }
}
