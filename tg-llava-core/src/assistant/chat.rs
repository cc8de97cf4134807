use burn::tensor::Tensor;

use super::Assistant;
use crate::conversation::{Conversation, Template, Turn, guide_text};
use crate::error::{Error, Result};
use crate::generate::{Answer, Decoding, GenerateOptions};
use crate::llm::splice;
use crate::model::{GuideTexts, ImageBatch, VisionFeatures};
use crate::multimodal::{MultimodalError, SplicePlan, SpliceRow, SpliceSettings};
use crate::preprocess::RgbImage;
use crate::tokenizer::{GuideCut, IMAGE_TAG};

/// A picture after the vision tower: any number of questions can be asked about it without another pass.
#[derive(Debug, Clone)]
pub struct EncodedImage {
    features: VisionFeatures,
}

/// A conversation: what was said, and the pictures that were shown.
#[derive(Debug, Clone, Default)]
pub struct Chat {
    turns: Vec<Turn>,
    images: Vec<EncodedImage>,
    /// Pictures that the next question brings.
    pending: usize,
}

impl Chat {
    /// Nothing said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows a picture with the next question.
    pub fn show(&mut self, image: EncodedImage) {
        self.images.push(image);
        self.pending += 1;
    }

    /// Asks a question. Pictures shown since the last one stand before it, or where the question itself
    /// says `<image>`.
    ///
    /// # Errors
    /// [`Error::Request`] for an empty question without a picture, or marks that are not one a picture.
    pub fn ask(&mut self, question: &str) -> Result<()> {
        if question.trim().is_empty() && self.pending == 0 {
            return Err(Error::Request("the question is empty; type a question or show a picture".into()));
        }
        let placed = question.matches(IMAGE_TAG).count();
        let text = match placed {
            0 => format!("{}{question}", format!("{IMAGE_TAG}\n").repeat(self.pending)),
            _ if placed == self.pending => question.to_owned(),
            _ => {
                let pending = self.pending;
                return Err(Error::Request(format!(
                    "the question says {IMAGE_TAG} {placed} time(s), but {pending} new picture(s) are shown with it; \
                     write one mark a picture, or none"
                )));
            }
        };
        self.pending = 0;
        self.turns.push(Turn::human(text));
        Ok(())
    }

    /// Notes the model's answer to the last question.
    pub fn answered(&mut self, answer: &str) {
        self.turns.push(Turn::gpt(answer));
    }

    /// Takes the last question back, as if it had not been asked; its pictures wait for the next one.
    pub fn take_back(&mut self) {
        if let Some(turn) = self.turns.pop() {
            self.pending += turn.value.matches(IMAGE_TAG).count();
        }
    }

    /// What was said, with `<image>` where pictures were shown.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Number of pictures shown.
    pub fn num_images(&self) -> usize {
        self.images.len()
    }
}

/// The prompt of `turns`, the last of which waits for its answer, with pictures marked as the template, or
/// `start_end` (`mm_use_im_start_end`), wants it.
///
/// # Errors
/// Where the template cannot hold the conversation.
pub fn open_prompt(template: &Template, turns: &[Turn], start_end: bool) -> Result<String> {
    let mark = match (template.wraps_images(), start_end) {
        (true, _) => "<Image><image></Image>",
        (false, true) => "<im_start><image><im_end>",
        (false, false) => IMAGE_TAG,
    };
    let mut conversation = Conversation::new(template);
    for turn in turns {
        conversation.push(turn.from.role(), turn.value.replace(IMAGE_TAG, mark));
    }
    conversation.push_open_answer();
    Ok(conversation.prompt()?.text)
}

impl Assistant {
    /// Runs a picture through the vision tower.
    ///
    /// # Errors
    /// [`MultimodalError::NoVisionTower`] for a plain decoder.
    pub fn encode_image(&self, picture: &RgbImage) -> Result<EncodedImage> {
        let mm = self.model.multimodal()?;
        let processor = self.processor.as_ref().ok_or(MultimodalError::NoVisionTower)?;
        let prepared = processor.prepare(picture, mm.aspect_ratio, mm.detail_source);
        let batch = ImageBatch::new(&[prepared], mm.detail.is_some(), &self.model.llm.device());
        Ok(EncodedImage { features: self.model.vision_features(&batch)? })
    }

    /// The prompt of a conversation whose answer is due, as text.
    ///
    /// # Errors
    /// Where the template cannot hold the conversation.
    pub fn prompt(&self, chat: &Chat) -> Result<String> {
        let start_end = self.model.config().multimodal.as_ref().is_some_and(|mm| mm.use_im_start_end);
        open_prompt(&self.template, &chat.turns, start_end)
    }

    /// Begins to answer the last question of `chat`.
    ///
    /// # Errors
    /// Where the prompt does not fit the model.
    pub fn answer(&self, chat: &Chat, options: &GenerateOptions) -> Result<Answer<'_>> {
        let prompt = self.prompt(chat)?;
        let row = SpliceRow {
            input_ids: self.tokenizer.encode_with_images(&prompt)?.ids,
            labels: None,
            images: (0..chat.images.len()).collect(),
        };
        let config = self.model.config();
        let settings = SpliceSettings {
            image_tokens: config.multimodal.as_ref().map_or(0, |mm| mm.num_image_tokens()),
            // A prompt is never cut: one that is too long is an error.
            max_length: usize::MAX,
            padding_side: config.padding_side,
            vocab_size: config.llm.vocab_size,
        };
        let plan = SplicePlan::new(&[row], settings)?;
        let image_tokens = match chat.images.is_empty() {
            true => None,
            false => Some(self.guided_tokens(chat)?),
        };
        let inputs_embeds = splice(&plan, &self.model.llm, image_tokens);
        let decoding = Decoding::start(&self.model, &plan, inputs_embeds, options.clone())?;
        Ok(Answer::new(decoding, &self.tokenizer, options))
    }

    fn guided_tokens(&self, chat: &Chat) -> Result<Tensor<3>> {
        let mm = self.model.multimodal()?;
        let of = |pick: fn(&VisionFeatures) -> Option<Tensor<3>>| {
            chat.images.iter().map(|image| pick(&image.features)).collect::<Option<Vec<_>>>()
        };
        let features = VisionFeatures {
            images: Tensor::cat(chat.images.iter().map(|i| i.features.images.clone()).collect(), 0),
            crops: of(|features| features.crops.clone()).map(|crops| Tensor::cat(crops, 0)),
        };
        let (ids, pad_id) = match &self.guide_tokenizer {
            Some(tokenizer) => {
                let text = guide_text(&chat.turns, mm.guide_turn)?;
                (tokenizer.encode(&text, GuideCut::KeepEnd)?, tokenizer.pad_id())
            }
            None => (Vec::new(), 0),
        };
        let guides = GuideTexts { ids: vec![ids], pad_id, sample_of_image: vec![0; chat.images.len()] };
        self.model.image_tokens(&features, &guides)
    }
}
