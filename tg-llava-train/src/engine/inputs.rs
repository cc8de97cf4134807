//! From a data batch to what the model takes.

use burn::tensor::Device;
use tg_llava_core::model::{GuideTexts, ImageBatch, ModelBatch};
use tg_llava_core::multimodal::SpliceRow;
use tg_llava_core::preprocess::PreparedImage;

use crate::data::Batch;

/// Puts a batch on `device`. `guide_pad` fills short guide texts; crops are left out where nothing reads them.
pub fn model_batch(batch: &Batch, guide_pad: i64, with_crops: bool, device: &Device) -> ModelBatch {
    let mut pictures: Vec<PreparedImage> = Vec::new();
    let mut sample_of_image = Vec::new();
    let mut rows = Vec::with_capacity(batch.examples.len());
    for (sample, example) in batch.examples.iter().enumerate() {
        let first = pictures.len();
        pictures.extend(example.pictures.iter().cloned());
        sample_of_image.extend(std::iter::repeat_n(sample, example.pictures.len()));
        rows.push(SpliceRow {
            input_ids: example.input_ids.clone(),
            labels: Some(example.labels.clone()),
            images: (first..pictures.len()).collect(),
        });
    }
    let images = (!pictures.is_empty()).then(|| ImageBatch::new(&pictures, with_crops, device));
    ModelBatch {
        rows,
        images,
        guides: GuideTexts { ids: batch.guide_rows(), pad_id: guide_pad, sample_of_image },
    }
}
