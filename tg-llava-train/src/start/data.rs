//! The samples that a run learns from and is checked on.

use std::path::PathBuf;
use std::sync::Arc;

use tg_llava_core::config::ModelConfig;

use super::{ModelSetup, StartError};
use crate::config::TrainConfig;
use crate::data::{
    Dealing, EncodeOptions, Grouping, LlavaDataset, Loader, Permutations, SampleEncoder, SampleOrder, Sampler,
};

/// The samples of a run.
#[derive(Debug)]
pub struct TrainingData {
    /// Reads and encodes the training samples.
    pub loader: Arc<Loader>,
    /// Their order in each epoch, as indices into `indices`.
    sampler: Sampler,
    /// The model that they are made for.
    pub model: ModelConfig,
    /// The samples that are trained on.
    indices: Vec<usize>,
    /// Reads the validation samples, and which of them are used.
    pub validation: Option<(Arc<Loader>, Vec<usize>)>,
}

impl TrainingData {
    /// Samples of an epoch.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is nothing to train on.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The numbers of the samples that are trained on, in the order of the files.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The samples of `epoch` in their order.
    pub fn epoch(&self, epoch: u64) -> Vec<usize> {
        self.sampler.epoch(epoch).into_iter().map(|at| self.indices[at]).collect()
    }
}

/// Opens the files of `config` for a run on `ranks` devices.
///
/// # Errors
/// Where a file cannot be used, or no sample is left to train on.
pub fn open_data(config: &TrainConfig, setup: &ModelSetup, ranks: usize) -> Result<TrainingData, StartError> {
    let loader = open(&config.data.path, config, setup)?;
    let count = loader.dataset().len();
    let (indices, validation) = match &config.data.validation {
        None => ((0..count).collect(), None),
        Some(options) => {
            let limit = |mut indices: Vec<usize>| {
                if options.samples > 0 {
                    indices.truncate(options.samples);
                }
                indices
            };
            match (&options.path, options.fraction) {
                (Some(path), _) => {
                    let held = open(std::slice::from_ref(path), config, setup)?;
                    let indices = limit((0..held.dataset().len()).collect());
                    ((0..count).collect(), Some((held, indices)))
                }
                (None, fraction) => {
                    let (train, held) = hold_out(count, fraction.unwrap_or_default(), config.seed);
                    (train, Some((Arc::clone(&loader), limit(held))))
                }
            }
        }
    };
    if indices.is_empty() {
        let reason = format!("all {count} samples are held out; lower data.validation.fraction");
        return Err(StartError::NoSteps { reason });
    }
    let dataset = loader.dataset();
    let all = match config.data.order {
        SampleOrder::ModalityLength => dataset.modality_lengths(),
        SampleOrder::Sequential | SampleOrder::Shuffled | SampleOrder::Length => dataset.lengths(),
    };
    let lengths = indices.iter().map(|&index| all[index]).collect();
    // The reference groups over a whole optimizer step's samples.
    let Dealing { batch_size, micro_batches, .. } = config.run.dealing(ranks);
    let grouping = Grouping { batch_size, chunks: micro_batches };
    let sampler = Sampler::new(config.data.order, lengths, grouping, config.seed);
    Ok(TrainingData { loader, sampler, model: setup.model.clone(), indices, validation })
}

/// Splits `count` samples into those that train and a share that does not, by the seed.
fn hold_out(count: usize, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let held = ((count as f64 * fraction).round() as usize).max(1);
    let order = Permutations::new(seed, u64::MAX).permutation(count);
    let (held, train) = order.split_at(held.min(count));
    let sorted = |part: &[usize]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part
    };
    (sorted(train), sorted(held))
}

fn open(paths: &[PathBuf], config: &TrainConfig, setup: &ModelSetup) -> Result<Arc<Loader>, StartError> {
    let dataset = LlavaDataset::open_all(paths, config.data.on_bad_sample)?;
    let encoder = encoder(setup, config)?;
    Ok(Arc::new(Loader::new(dataset, encoder, config.data.on_bad_sample)?))
}

/// What encodes the samples of a run.
fn encoder(setup: &ModelSetup, config: &TrainConfig) -> Result<SampleEncoder, StartError> {
    let image_folder = config.data.image_folder.clone().unwrap_or_default();
    let mut options = EncodeOptions::new(&setup.template, image_folder, setup.model.max_length);
    options.allow_outside = config.data.allow_outside;
    let codecs = setup.codecs.clone();
    if let Some(mm) = &setup.model.multimodal {
        options = options.of_model(mm);
    }
    let images = codecs
        .processor
        .ok_or(tg_llava_core::Error::from(tg_llava_core::multimodal::MultimodalError::NoVisionTower))?;
    Ok(SampleEncoder { tokenizer: codecs.tokenizer, guide: codecs.guide_tokenizer, images, options })
}
