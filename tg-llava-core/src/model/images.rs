use burn::tensor::{Device, Int, Tensor, TensorData};

use super::TgLlava;
use crate::config::{GuidePadding, MultimodalConfig};
use crate::error::Result;
use crate::multimodal::MultimodalError;
use crate::nn::cast_to;
use crate::preprocess::PreparedImage;
use crate::text::{GuideInput, TextFeatures};

/// Pictures that go through the vision tower at once; the frozen tower's memory is bounded by it.
const TOWER_CHUNK: usize = 20;

/// The pictures of a batch, normalised.
#[derive(Debug, Clone)]
pub struct ImageBatch {
    /// `[num_images, channels, size, size]`.
    pub pixels: Tensor<4>,
    /// The four detail crops of each picture, `[num_images, 4, channels, size, size]`.
    pub crops: Option<Tensor<5>>,
}

/// What the vision tower sees in a batch's pictures, before any question is known.
#[derive(Debug, Clone)]
pub struct VisionFeatures {
    /// `[num_images, num_vision_tokens, vision_width]`.
    pub images: Tensor<3>,
    /// The four crops' features in a row, `[num_images, 4 * num_vision_tokens, vision_width]`.
    pub crops: Option<Tensor<3>>,
}

/// The questions that guide a batch's pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuideTexts {
    /// Ids of each sample's guide text, without padding.
    pub ids: Vec<Vec<i64>>,
    /// Id that fills short rows.
    pub pad_id: i64,
    /// For each picture, the sample that it belongs to.
    pub sample_of_image: Vec<usize>,
}

impl ImageBatch {
    /// Puts prepared pictures on a device; crops are left out where `with_crops` is false.
    ///
    /// # Errors
    /// Never at present; pictures of unequal size are a programmer's error and panic in the backend.
    pub fn new(images: &[PreparedImage], with_crops: bool, device: &Device) -> Self {
        let size = images.first().map_or(0, |image| image.size);
        let count = images.len();
        let pixels: Vec<f32> = images.iter().flat_map(|i| i.pixels.iter().copied()).collect();
        let pixels = Tensor::from_data(TensorData::new(pixels, [count, 3, size, size]), device);
        let crops = with_crops.then(|| {
            let values: Vec<f32> = images.iter().flat_map(|i| i.crops.iter().copied()).collect();
            Tensor::from_data(TensorData::new(values, [count, 4, 3, size, size]), device)
        });
        Self { pixels, crops }
    }
}

impl TgLlava {
    /// Runs the vision tower over pictures and crops; the result can be kept for further questions.
    ///
    /// # Errors
    /// [`MultimodalError::NoVisionTower`] for a plain decoder.
    pub fn vision_features(&self, batch: &ImageBatch) -> Result<VisionFeatures> {
        let mm = self.multimodal()?;
        let pixels = batch.pixels.clone();
        let (Some(_), Some(crops)) = (&self.detail_perceiver, &batch.crops) else {
            return Ok(VisionFeatures { images: self.tower_features(mm, pixels)?, crops: None });
        };
        // Pictures and crops in one pass.
        let [count, four, ..] = crops.dims();
        let all = Tensor::cat(vec![pixels, crops.clone().flatten::<4>(0, 1)], 0);
        let features = self.tower_features(mm, all)?;
        let [_, tokens, hidden] = features.dims();
        let images = features.clone().narrow(0, 0, count);
        let crops = features.narrow(0, count, count * four).reshape([count, four * tokens, hidden]);
        Ok(VisionFeatures { images, crops: Some(crops) })
    }

    fn tower_features(&self, mm: &MultimodalConfig, pixels: Tensor<4>) -> Result<Tensor<3>> {
        let tower = self.vision_tower.as_ref().ok_or(MultimodalError::NoVisionTower)?;
        let index = mm.vision.hidden_state_index(mm.select_layer)?;
        let pixels = cast_to(pixels, tower.post_layernorm.gamma.dtype());
        let chunks = pixels.split(TOWER_CHUNK, 0).into_iter();
        Ok(Tensor::cat(chunks.map(|chunk| tower.features(chunk, index, mm.select_feature)).collect(), 0))
    }

    /// Decoder tokens of each picture, guided by its sample's text: projected vision tokens, then detail
    /// tokens.
    ///
    /// # Shapes
    /// - output: `[num_images, num_image_tokens, llm_hidden]`
    ///
    /// # Errors
    /// Where a guide text does not fit the text tower, or the model has no vision tower.
    pub fn image_tokens(&self, features: &VisionFeatures, guides: &GuideTexts) -> Result<Tensor<3>> {
        let projector = self.projector.as_ref().ok_or(MultimodalError::NoVisionTower)?;
        let text = self.guide_features(guides)?;
        let mut guided = features.images.clone();
        if let (Some(guide), Some((text, _))) = (&self.feature_guide, &text) {
            guided = guided + guide.forward(text.pooled.clone());
        }
        let projected = projector.forward(guided);
        match (&self.detail_perceiver, &features.crops, text) {
            (Some(detail), Some(crops), Some((text, mask))) => {
                let tokens = detail.forward(crops.clone(), text.last_hidden_state, &mask);
                Ok(Tensor::cat(vec![projected, tokens], 1))
            }
            _ => Ok(projected),
        }
    }

    /// The text tower's view of every picture's guide, and which positions are real.
    fn guide_features(&self, guides: &GuideTexts) -> Result<Option<(TextFeatures, Vec<Vec<bool>>)>> {
        let Some(tower) = &self.text_tower else { return Ok(None) };
        let Some(plan) = self.plan_guides(guides)? else { return Ok(None) };
        let text = tower.forward(&plan.input);
        Ok(Some((plan.per_image(text.last_hidden_state, text.pooled), plan.masks())))
    }

    /// Which guide texts the text tower reads, and which picture takes which; `None` without a text tower.
    ///
    /// # Errors
    /// Where a guide text does not fit the text tower.
    pub fn plan_guides(&self, guides: &GuideTexts) -> Result<Option<GuidePlan>> {
        let mm = self.multimodal()?;
        let Some(config) = &mm.text else { return Ok(None) };
        // Guides without a picture are not needed, unless their length pads the others as in the reference.
        let (texts, row_of_image): (Vec<Vec<i64>>, Vec<usize>) = match mm.guide_padding {
            GuidePadding::Visible => (guides.ids.clone(), guides.sample_of_image.clone()),
            GuidePadding::Masked => {
                let mut samples = guides.sample_of_image.clone();
                samples.dedup();
                let row = |sample: &usize| samples.iter().position(|s| s == sample).unwrap_or(0);
                let rows = guides.sample_of_image.iter().map(row).collect();
                (samples.iter().map(|&sample| guides.ids[sample].clone()).collect(), rows)
            }
        };
        let input = GuideInput::new(&texts, guides.pad_id, mm.guide_padding, config)?;
        Ok(Some(GuidePlan { input, row_of_image }))
    }
}

/// Guide texts ready for the text tower, and the row that guides each picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuidePlan {
    /// The texts that are read, one a row.
    pub input: GuideInput,
    /// For each picture, its row.
    pub row_of_image: Vec<usize>,
}

impl GuidePlan {
    /// One row a picture, from one row a text.
    ///
    /// # Shapes
    /// - last_hidden_state: `[texts, len, hidden]`, output `[num_images, len, hidden]`
    /// - pooled: `[texts, hidden]`, output `[num_images, hidden]`
    pub fn per_image(&self, last_hidden_state: Tensor<3>, pooled: Tensor<2>) -> TextFeatures {
        let rows: Vec<i64> = self.row_of_image.iter().map(|&row| row as i64).collect();
        let count = rows.len();
        let rows: Tensor<1, Int> = Tensor::from_data(TensorData::new(rows, [count]), &pooled.device());
        TextFeatures {
            last_hidden_state: last_hidden_state.select(0, rows.clone()),
            pooled: pooled.select(0, rows),
        }
    }

    /// For each picture, which positions of its guide are real.
    pub fn masks(&self) -> Vec<Vec<bool>> {
        self.row_of_image.iter().map(|&row| self.input.context_mask[row].clone()).collect()
    }
}
