use super::GenerateOptions;
use crate::error::{Error, Result};
use crate::model::{EncodedImage, GuideTexts, TgLlava, VisionFeatures};
use crate::multimodal::{SplicePlan, SpliceRow, SpliceSettings};
use crate::preprocess::PictureId;

/// One answer to generate: the prompt as ids, its pictures, the text that guides them, and how to answer.
///
/// [`PromptWriter`](crate::assistant::PromptWriter) makes one from a conversation.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids of the prompt; [`IMAGE_TOKEN_INDEX`](crate::multimodal::IMAGE_TOKEN_INDEX) stands for a picture.
    pub input_ids: Vec<i64>,
    /// What the vision tower saw in the pictures, one or more at a time, in the order of their marks.
    pub images: Vec<EncodedImage>,
    /// Ids of the guide text; none without pictures or a text tower.
    pub guide_ids: Vec<i64>,
    /// Id that fills a short guide text.
    pub guide_pad: i64,
    /// How the answer is generated.
    pub options: GenerateOptions,
}

/// A request that was checked.
#[derive(Debug)]
pub(super) struct Prompt {
    /// What stands where.
    pub plan: SplicePlan,
    /// None for a text alone.
    pub pictures: Option<Pictures>,
    /// Longest answer that the options and the context allow, in tokens.
    pub budget: usize,
}

/// What guided tokens depend on: pictures and guide.
pub(super) type GuidedKey = (Vec<PictureId>, Vec<i64>);

/// A prompt's pictures with the text that guides them.
#[derive(Debug, Clone)]
pub(super) struct Pictures {
    pub features: VisionFeatures,
    pub guides: GuideTexts,
    /// `None` where it is not known what the pictures show.
    pub key: Option<GuidedKey>,
}

impl Request {
    /// A request without pictures.
    pub fn text(input_ids: Vec<i64>, options: GenerateOptions) -> Self {
        Self { input_ids, images: Vec::new(), guide_ids: Vec::new(), guide_pad: 0, options }
    }

    /// Checks everything, before anything is computed.
    pub(super) fn check(self, model: &TgLlava) -> Result<Prompt> {
        self.options.validate()?;
        let config = model.config();
        let count = self.images.iter().map(|image| image.features.images.dims()[0]).sum();
        // A prompt is never cut: one that is too long is an error.
        let settings = SpliceSettings { max_length: usize::MAX, ..SpliceSettings::of(config) };
        let row = SpliceRow { input_ids: self.input_ids, labels: None, images: (0..count).collect() };
        let plan = SplicePlan::new(&[row], settings)?;
        let (len, context) = (plan.len(), config.llm.context_length());
        if len >= context {
            return Err(Error::Request(format!(
                "the prompt has {len} tokens and the model's context {context}; shorten it or show fewer pictures"
            )));
        }
        let mut pictures = None;
        if count > 0 {
            let sample_of_image = vec![0; count];
            let guides = GuideTexts { ids: vec![self.guide_ids], pad_id: self.guide_pad, sample_of_image };
            model.plan_guides(&guides)?;
            let ids = self.images.iter().map(|image| image.id).collect::<Option<Vec<_>>>();
            let key = ids.map(|ids| (ids, guides.ids[0].clone()));
            let features = self.images.into_iter().map(|image| image.features).collect();
            pictures = Some(Pictures { features: VisionFeatures::together(features), guides, key });
        }
        Ok(Prompt { plan, pictures, budget: self.options.max_new_tokens.min(context - len) })
    }
}

impl Prompt {
    /// Length in tokens; pictures count with all of theirs.
    pub fn len(&self) -> usize {
        self.plan.len()
    }
}
