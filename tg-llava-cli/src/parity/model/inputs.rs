//! Scenario inputs, from golden tensors to model batches.

use anyhow::Context;
use burn::tensor::{Device, Tensor, TensorData};
use tg_llava_core::model::{GuideTexts, ImageBatch, ModelBatch};
use tg_llava_core::multimodal::{IMAGE_TOKEN_INDEX, SpliceRow};
use tg_llava_core::preprocess::{Pixels, PreparedImage, quadrant_crops, upsample_2x};

use super::{Case, ImageRef};
use crate::parity::golden::Array;

/// One scenario, sample by sample, without padding.
pub(super) struct Inputs {
    /// Picture of each sample; text-only samples have one too, as the reference feeds it.
    pub images: Vec<PreparedImage>,
    /// Guide ids as recorded: padded to one length.
    pub guides: Vec<Vec<i64>>,
    /// Ids and labels of each sample, padding taken off; empty where the scenario stops at the bridges.
    pub rows: Vec<SpliceRow>,
}

impl Inputs {
    /// Inputs of `scenario`; `leftpad` shares those of `mixed`.
    pub fn read(case: &Case<'_>, scenario: &str) -> anyhow::Result<Self> {
        let meta = case.meta.scenarios.get(scenario).with_context(|| format!("no scenario {scenario:?}"))?;
        let (tensor, rows) = match &meta.images {
            ImageRef::Whole(tensor) => (tensor, None),
            ImageRef::Rows { tensor, rows } => (tensor, Some(rows)),
        };
        let all = prepare_all(case.golden.float(tensor).with_context(|| tensor.clone())?);
        let images = match rows {
            Some(rows) => rows.iter().map(|&row| all[row].clone()).collect(),
            None => all,
        };
        let source = if scenario == "leftpad" { "mixed" } else { scenario };
        let guides = case.golden.int(&format!("{source}.text_guide_ids")).context("text_guide_ids")?.rows();
        let rows = if meta.llm { text_rows(case, source)? } else { Vec::new() };
        Ok(Self { images, guides, rows })
    }

    /// All samples, each with its picture and its guide, as the reference encodes them: text-only samples too.
    pub fn whole_batch(&self, pad_id: i64, device: &Device) -> ModelBatch {
        let sample_of_image = (0..self.images.len()).collect();
        ModelBatch {
            rows: self.rows.clone(),
            images: Some(ImageBatch::new(&self.images, true, device)),
            guides: GuideTexts { ids: self.guides.clone(), pad_id, sample_of_image },
        }
    }

    /// The samples in `keep` as a batch that encodes only pictures which are shown; guides cut to their
    /// real ids.
    pub fn batch(&self, keep: &[usize], eos: i64, device: &Device) -> ModelBatch {
        let shown: Vec<usize> =
            keep.iter().copied().filter(|&row| !self.rows[row].images.is_empty()).collect();
        let pictures: Vec<PreparedImage> = shown.iter().map(|&row| self.images[row].clone()).collect();
        let rows = keep.iter().map(|&row| SpliceRow {
            images: shown.iter().position(|&s| s == row).into_iter().collect(),
            ..self.rows[row].clone()
        });
        ModelBatch {
            rows: rows.collect(),
            images: (!pictures.is_empty()).then(|| ImageBatch::new(&pictures, true, device)),
            guides: GuideTexts {
                ids: keep.iter().map(|&row| unpadded(&self.guides[row], eos)).collect(),
                pad_id: eos,
                sample_of_image: shown.iter().filter_map(|row| keep.iter().position(|k| k == row)).collect(),
            },
        }
    }
}

/// Ids up to the first end token; a text that lost it keeps all.
pub(super) fn unpadded(ids: &[i64], eos: i64) -> Vec<i64> {
    let end = ids.iter().position(|&id| id == eos).map_or(ids.len(), |p| p + 1);
    ids[..end].to_vec()
}

fn text_rows(case: &Case<'_>, source: &str) -> anyhow::Result<Vec<SpliceRow>> {
    let read = |name: &str| -> anyhow::Result<Vec<Vec<i64>>> {
        let key = format!("{source}.{name}");
        Ok(case.golden.int(&key).with_context(|| key.clone())?.rows())
    };
    let (ids, labels, mask) = (read("input_ids")?, read("labels")?, read("attention_mask")?);
    let kept = |row: &[i64], mask: &[i64]| -> Vec<i64> {
        row.iter().zip(mask).filter(|(_, real)| **real != 0).map(|(&value, _)| value).collect()
    };
    let row = |i: usize| {
        let input_ids = kept(&ids[i], &mask[i]);
        let images = if input_ids.contains(&IMAGE_TOKEN_INDEX) { vec![i] } else { Vec::new() };
        SpliceRow { labels: Some(kept(&labels[i], &mask[i])), input_ids, images }
    };
    Ok((0..ids.len()).map(row).collect())
}

/// Pictures with their crops, from normalised pixels `[batch, 3, size, size]`.
pub(super) fn prepare_all(pixels: &Array<f32>) -> Vec<PreparedImage> {
    let size = pixels.shape[3];
    let prepare = |data: Vec<f32>| {
        let pixels = Pixels { data, height: size, width: size };
        let crops = quadrant_crops(&upsample_2x(&pixels));
        PreparedImage { size, pixels: pixels.data, crops }
    };
    pixels.rows().into_iter().map(prepare).collect()
}

/// A golden tensor on the device.
pub(super) fn to_device<const D: usize>(array: &Array<f32>, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(array.values.clone(), array.shape.clone()), device)
}
