//! `[data]`: what is learned and what it is checked on.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use tg_llava_core::preprocess::AspectRatio;

use super::{Steps, names};
use crate::data::{OnBadSample, SampleOrder};

/// The samples of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataOptions {
    /// LLaVA files (JSON or JSONL): one path, or a list of them. Required (`data_path`).
    #[serde(deserialize_with = "one_or_many")]
    pub path: Vec<PathBuf>,
    /// Folder that the samples' pictures are named from. Needed where samples have pictures.
    pub image_folder: Option<PathBuf>,
    /// Whether names of pictures may lead out of `image_folder`: absolute ones, `..`, and links to elsewhere. Default
    /// false.
    pub allow_outside: bool,
    /// Pictures that are not square are laid on a square first (`pad`), or lose what lies outside the middle square
    /// (`square`) (`image_aspect_ratio`). Default, as in the published scripts: `square` in stage 1, `pad` in 2.
    #[serde(with = "names::aspect_ratio")]
    pub aspect_ratio: AspectRatio,
    /// Order of an epoch: `sequential`, `shuffled`, `length` or `modality_length` (`group_by_modality_length`).
    /// Default: `shuffled` in stage 1, `modality_length` in 2.
    pub order: SampleOrder,
    /// What to do with a sample that cannot be used: `error` or `skip`. Default `error`.
    pub on_bad_sample: OnBadSample,
    /// Threads that decode pictures and encode text (`dataloader_num_workers`). Default 2.
    pub workers: usize,
    /// Batches made ready ahead of the device. Default 4.
    pub prefetch: usize,
    /// Samples to check the model on while it learns. Default: none.
    pub validation: Option<ValidationOptions>,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            path: Vec::new(),
            image_folder: None,
            allow_outside: false,
            aspect_ratio: AspectRatio::Pad,
            order: SampleOrder::ModalityLength,
            on_bad_sample: OnBadSample::default(),
            workers: 2,
            prefetch: 4,
            validation: None,
        }
    }
}

/// `[data.validation]`: held-out samples; either `path` or `fraction`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationOptions {
    /// A LLaVA file of its own.
    pub path: Option<PathBuf>,
    /// The share of the training samples that is held out instead, in `(0, 1)`.
    pub fraction: Option<f64>,
    /// Optimizer steps from one check to the next: a count, or a share of the run in `(0, 1)`; 0 for the end alone.
    /// Default 0.1.
    pub every: Steps,
    /// How many samples at most; 0 for all. Default 0.
    pub samples: usize,
    /// Whether answers are generated too, and counted where they equal the expected ones. Default false.
    pub generate: bool,
    /// Longest generated answer in tokens. Default 64.
    pub max_new_tokens: usize,
    /// Samples at once (`per_device_eval_batch_size`). Default 8.
    pub batch_size: usize,
}

impl Default for ValidationOptions {
    fn default() -> Self {
        Self {
            path: None,
            fraction: None,
            every: Steps::Share(0.1),
            samples: 0,
            generate: false,
            max_new_tokens: 64,
            batch_size: 8,
        }
    }
}

/// A path, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    struct PathsVisitor;
    impl<'de> Visitor<'de> for PathsVisitor {
        type Value = Vec<PathBuf>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a path or a list of paths")
        }

        fn visit_str<E>(self, path: &str) -> Result<Vec<PathBuf>, E> {
            Ok(if path.is_empty() { Vec::new() } else { vec![path.into()] })
        }

        fn visit_seq<A: SeqAccess<'de>>(self, paths: A) -> Result<Vec<PathBuf>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(paths))
        }
    }
    deserializer.deserialize_any(PathsVisitor)
}
