use burn::tensor::Tensor;

use super::GenerateOptions;
use crate::error::{Error, Result};
use crate::llm::splice;
use crate::model::{GuideTexts, TgLlava, VisionFeatures};
use crate::multimodal::{SplicePlan, SpliceRow, SpliceSettings};

/// One answer to generate: the prompt as ids, its pictures, the text that guides them, and how to answer.
///
/// [`PromptWriter`](crate::assistant::PromptWriter) makes one from a conversation.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids of the prompt; [`IMAGE_TOKEN_INDEX`](crate::multimodal::IMAGE_TOKEN_INDEX) stands for a picture.
    pub input_ids: Vec<i64>,
    /// What the vision tower saw in the pictures, one or more at a time, in the order of their marks.
    pub images: Vec<VisionFeatures>,
    /// Ids of the guide text; none without pictures or a text tower.
    pub guide_ids: Vec<i64>,
    /// Id that fills a short guide text.
    pub guide_pad: i64,
    /// How the answer is generated.
    pub options: GenerateOptions,
}

/// A request as the decoder takes it.
pub(super) struct Prompt {
    /// `[1, len, hidden]`.
    pub inputs_embeds: Tensor<3>,
    /// Longest answer that the options and the context allow, in tokens.
    pub budget: usize,
}

impl Request {
    /// A request without pictures.
    pub fn text(input_ids: Vec<i64>, options: GenerateOptions) -> Self {
        Self { input_ids, images: Vec::new(), guide_ids: Vec::new(), guide_pad: 0, options }
    }

    /// Checks everything, and then computes the decoder's inputs.
    pub(super) fn prepare(self, model: &TgLlava) -> Result<Prompt> {
        self.options.validate()?;
        let config = model.config();
        let count = self.images.iter().map(|images| images.images.dims()[0]).sum();
        let settings = SpliceSettings {
            image_tokens: config.multimodal.as_ref().map_or(0, |mm| mm.num_image_tokens()),
            // A prompt is never cut: one that is too long is an error.
            max_length: usize::MAX,
            padding_side: config.padding_side,
            vocab_size: config.llm.vocab_size,
        };
        let row = SpliceRow { input_ids: self.input_ids, labels: None, images: (0..count).collect() };
        let plan = SplicePlan::new(&[row], settings)?;
        let (len, context) = (plan.len(), config.llm.context_length());
        if len >= context {
            return Err(Error::Request(format!(
                "the prompt has {len} tokens and the model's context {context}; shorten it or show fewer pictures"
            )));
        }
        let image_tokens = match count {
            0 => None,
            _ => {
                let sample_of_image = vec![0; count];
                let guides =
                    GuideTexts { ids: vec![self.guide_ids], pad_id: self.guide_pad, sample_of_image };
                Some(model.image_tokens(&together(self.images), &guides)?)
            }
        };
        let inputs_embeds = splice(&plan, &model.llm, image_tokens);
        Ok(Prompt { inputs_embeds, budget: self.options.max_new_tokens.min(context - len) })
    }
}

/// The features of several pictures as one batch; crops are left out unless all have them.
fn together(mut all: Vec<VisionFeatures>) -> VisionFeatures {
    if all.len() == 1 {
        return all.remove(0);
    }
    let crops = all.iter().map(|features| features.crops.clone()).collect::<Option<Vec<_>>>();
    VisionFeatures {
        images: Tensor::cat(all.into_iter().map(|features| features.images).collect(), 0),
        crops: crops.map(|crops| Tensor::cat(crops, 0)),
    }
}
