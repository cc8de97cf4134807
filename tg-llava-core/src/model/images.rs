use burn::tensor::{Device, Int, Tensor, TensorData};

use super::TgLlava;
use crate::config::GuidePadding;
use crate::error::Result;
use crate::multimodal::MultimodalError;
use crate::pass::{Eager, Pass, Site};
use crate::preprocess::{PictureId, PreparedImage};
use crate::text::GuideInput;

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

/// What the vision tower sees in a batch's pictures, before any question is known: tensors, or what stands for them in a
/// [`Pass`].
#[derive(Debug, Clone)]
pub struct VisionFeatures<V = Tensor<3>> {
    /// `[num_images, num_vision_tokens, vision_width]`.
    pub images: V,
    /// The four crops' features in a row, `[num_images, 4 * num_vision_tokens, vision_width]`.
    pub crops: Option<V>,
}

impl VisionFeatures {
    /// The features of several pictures as one batch, at least one; crops are left out unless all have them.
    pub(crate) fn together(mut all: Vec<Self>) -> Self {
        if all.len() == 1 {
            return all.remove(0);
        }
        let crops = all.iter().map(|features| features.crops.clone()).collect::<Option<Vec<_>>>();
        Self {
            images: Tensor::cat(all.into_iter().map(|features| features.images).collect(), 0),
            crops: crops.map(|crops| Tensor::cat(crops, 0)),
        }
    }
}

/// Pictures after the vision tower: any number of questions can be asked about them without another pass.
#[derive(Debug, Clone)]
pub struct EncodedImage {
    /// What the tower saw; of one picture or more.
    pub features: VisionFeatures,
    /// Names what is seen, for caches; `None` where nobody knows.
    pub id: Option<PictureId>,
}

impl From<VisionFeatures> for EncodedImage {
    fn from(features: VisionFeatures) -> Self {
        Self { features, id: None }
    }
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
    /// Runs the vision tower over one picture, with crops where they are read.
    ///
    /// # Errors
    /// [`MultimodalError::NoVisionTower`] for a plain decoder.
    pub fn encode(&self, picture: PreparedImage) -> Result<EncodedImage> {
        let id = Some(picture.id());
        let batch = ImageBatch::new(&[picture], self.detail_perceiver.is_some(), &self.llm.device());
        Ok(EncodedImage { features: self.vision_features(&batch)?, id })
    }

    /// Runs the vision tower over pictures and crops; the result can be kept for further questions.
    ///
    /// # Errors
    /// [`MultimodalError::NoVisionTower`] for a plain decoder.
    pub fn vision_features(&self, batch: &ImageBatch) -> Result<VisionFeatures> {
        self.walk_vision(&mut Eager, batch)
    }

    /// [`Self::vision_features`], step by step.
    ///
    /// # Errors
    /// [`MultimodalError::NoVisionTower`] for a plain decoder.
    pub fn walk_vision<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        batch: &ImageBatch,
    ) -> Result<VisionFeatures<P::Var>> {
        let mm = self.multimodal()?;
        let tower = self.vision_tower.as_ref().ok_or(MultimodalError::NoVisionTower)?;
        let (index, select) = (mm.vision.hidden_state_index(mm.select_layer)?, mm.select_feature);
        let count = batch.pixels.dims()[0];
        // Pictures and crops in one pass.
        let pixels = match batch.crops.clone().filter(|_| self.detail_perceiver.is_some()) {
            Some(crops) => Tensor::cat(vec![batch.pixels.clone(), crops.flatten::<4>(0, 1)], 0),
            None => batch.pixels.clone(),
        };
        let chunks = pixels.split(TOWER_CHUNK, 0).into_iter();
        let hidden: Vec<P::Var> = chunks.map(|chunk| tower.walk(pass, chunk, index)).collect();
        let mut outputs = pass.run(Site::VisionFeatures, &hidden, move |x| {
            let features = Tensor::cat(x.iter().map(|x| tower.select(x.clone(), select)).collect(), 0);
            let [rows, tokens, width] = features.dims();
            if rows == count {
                return vec![features];
            }
            let crops = features.clone().narrow(0, count, rows - count);
            vec![features.narrow(0, 0, count), crops.reshape([count, 4 * tokens, width])]
        });
        let crops = (outputs.len() > 1).then(|| outputs.remove(1));
        Ok(VisionFeatures { images: outputs.remove(0), crops })
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
        self.walk_image_tokens(&mut Eager, features.clone(), guides)
    }

    /// [`Self::image_tokens`], step by step.
    ///
    /// # Errors
    /// Where a guide text does not fit the text tower, or the model has no vision tower.
    pub fn walk_image_tokens<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        features: VisionFeatures<P::Var>,
        guides: &GuideTexts,
    ) -> Result<P::Var> {
        let projector = self.projector.as_ref().ok_or(MultimodalError::NoVisionTower)?;
        let text = self.walk_guides(pass, guides)?;
        let mut guided = features.images;
        if let (Some(guide), Some(text)) = (&self.feature_guide, &text) {
            let mask = guide.walk(pass, text.pooled.clone());
            guided = pass.run_one(Site::GuidedFeatures, &[guided, mask], |x| x[0].clone() + x[1].clone());
        }
        let mut tokens = vec![pass.run_one(Site::Projector, &[guided], |x| projector.forward(x[0].clone()))];
        if let (Some(detail), Some(crops), Some(text)) = (&self.detail_perceiver, features.crops, text) {
            tokens.push(detail.walk(pass, crops, text.last_hidden_state, &text.masks));
        }
        Ok(pass.run_one(Site::ImageTokens, &tokens, |x| Tensor::cat(x.to_vec(), 1)))
    }

    /// The text tower's view of every picture's guide; `None` without a text tower.
    fn walk_guides<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        guides: &GuideTexts,
    ) -> Result<Option<Guides<P::Var>>> {
        let Some(tower) = &self.text_tower else { return Ok(None) };
        let Some(plan) = self.plan_guides(guides)? else { return Ok(None) };
        let states = tower.walk(pass, &plan.input);
        let masks = plan.masks();
        let rows =
            pass.run(Site::Guides, &states, move |x| x.iter().map(|x| plan.per_image(x.clone())).collect());
        let [last_hidden_state, pooled] = [rows[0].clone(), rows[1].clone()];
        Ok(Some(Guides { last_hidden_state, pooled, masks }))
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

/// What the bridges read of the guide texts, a row a picture.
struct Guides<V> {
    /// `[num_images, len, text_hidden]`.
    last_hidden_state: V,
    /// `[num_images, 1, text_hidden]`.
    pooled: V,
    masks: Vec<Vec<bool>>,
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
    fn per_image(&self, of_texts: Tensor<3>) -> Tensor<3> {
        let rows: Vec<i64> = self.row_of_image.iter().map(|&row| row as i64).collect();
        let count = rows.len();
        let rows: Tensor<1, Int> = Tensor::from_data(TensorData::new(rows, [count]), &of_texts.device());
        of_texts.select(0, rows)
    }

    /// For each picture, which positions of its guide are real.
    pub fn masks(&self) -> Vec<Vec<bool>> {
        self.row_of_image.iter().map(|&row| self.input.context_mask[row].clone()).collect()
    }
}
