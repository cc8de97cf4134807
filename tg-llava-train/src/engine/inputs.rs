//! From plain buffers to what the model takes on its device.

use std::borrow::Cow;

use tg_llava_core::Result;
use tg_llava_core::config::ModelConfig;
use tg_llava_core::model::{GuideTexts, ImageBatch, ModelBatch, TgLlava};
use tg_llava_core::preprocess::PreparedImage;

use crate::data::{Batch, Micro};

/// Samples that go through a model, wherever they are now.
pub trait ModelInput {
    /// The samples on the device of `model`.
    fn on_device(&self, model: &TgLlava) -> Cow<'_, ModelBatch>;
}

impl ModelInput for ModelBatch {
    /// The batch itself, which must be there already.
    fn on_device(&self, _model: &TgLlava) -> Cow<'_, ModelBatch> {
        Cow::Borrowed(self)
    }
}

impl ModelInput for Batch {
    /// A copy of the buffers; crops are left out where nothing reads them.
    fn on_device(&self, model: &TgLlava) -> Cow<'_, ModelBatch> {
        let pictures: Vec<PreparedImage> =
            self.examples.iter().flat_map(|example| example.pictures.iter().cloned()).collect();
        let owners = self.examples.iter().enumerate();
        let sample_of_image = owners.flat_map(|(sample, e)| std::iter::repeat_n(sample, e.pictures.len()));
        let crops = model.detail_perceiver.is_some();
        let images = (!pictures.is_empty()).then(|| ImageBatch::new(&pictures, crops, &model.llm.device()));
        Cow::Owned(ModelBatch {
            rows: self.rows(),
            images,
            guides: GuideTexts {
                ids: self.examples.iter().map(|example| example.guide_ids.clone()).collect(),
                pad_id: self.guide_pad,
                sample_of_image: sample_of_image.collect(),
            },
        })
    }
}

impl Micro<ModelBatch> {
    /// A batch that did not come from a data set, planned for `model`.
    ///
    /// # Errors
    /// Where text, pictures and model do not fit together.
    pub fn of(batch: ModelBatch, model: &ModelConfig) -> Result<Self> {
        let (plan, targets) = crate::data::plan(&batch.rows, model)?;
        Ok(Self { batch, plan, targets, samples: Vec::new() })
    }
}
