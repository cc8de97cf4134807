use super::Assistant;
use super::prompt::{PromptWriter, without_pictures};
use crate::conversation::{Speaker, Turn};
use crate::error::{Error, Result};
use crate::generate::{Answer, Engine, GenerateOptions, Request};
use crate::model::EncodedImage;
use crate::multimodal::MultimodalError;
use crate::preprocess::RgbImage;
use crate::tokenizer::IMAGE_TAG;

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

    /// Notes the model's answer to the last question. `<image>` in it is text and stands for no picture.
    pub fn answered(&mut self, answer: &str) {
        self.turns.push(Turn::gpt(answer));
    }

    /// Takes the last question back, as if it had not been asked; its pictures wait for the next one.
    pub fn take_back(&mut self) {
        if let Some(turn) = self.turns.pop() {
            self.pending += turn.value.matches(IMAGE_TAG).count();
        }
    }

    /// Forgets the pictures that no question was asked about yet; how many these were.
    pub fn withdraw(&mut self) -> usize {
        self.images.truncate(self.images.len() - self.pending);
        std::mem::take(&mut self.pending)
    }

    /// What was said, with `<image>` where pictures were shown.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// What was said, for a prompt: only questions show pictures.
    fn prompt_turns(&self) -> Vec<Turn> {
        let turn = |turn: &Turn| match turn.from {
            Speaker::Human => turn.clone(),
            Speaker::Gpt => Turn::gpt(without_pictures(&turn.value)),
        };
        self.turns.iter().map(turn).collect()
    }

    /// Number of pictures shown.
    pub fn num_images(&self) -> usize {
        self.images.len()
    }
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
        self.model.encode(prepared)
    }

    /// How this checkpoint's prompts are written.
    pub fn prompt_writer(&self) -> PromptWriter<'_> {
        let (config, guide) = (self.model.config(), self.guide_tokenizer.as_ref());
        PromptWriter::new(config, &self.template, &self.tokenizer, guide)
    }

    /// The prompt of a conversation whose answer is due, as text.
    ///
    /// # Errors
    /// Where the template cannot hold the conversation.
    pub fn prompt(&self, chat: &Chat) -> Result<String> {
        self.prompt_writer().text(&chat.prompt_turns())
    }

    /// The request for the answer to the last question of `chat`, for an [`Engine`].
    ///
    /// # Errors
    /// Where the template cannot hold the conversation, or a text cannot be tokenized.
    pub fn request(&self, chat: &Chat, options: &GenerateOptions) -> Result<Request> {
        self.prompt_writer().request(&chat.prompt_turns(), chat.images.clone(), options.clone())
    }

    /// An engine that answers any number of requests at once.
    pub fn engine(&self) -> Engine<'_> {
        Engine::new(&self.model, Some(&self.tokenizer))
    }

    /// Begins to answer the last question of `chat`.
    ///
    /// # Errors
    /// Where the prompt does not fit the model.
    pub fn answer(&self, chat: &Chat, options: &GenerateOptions) -> Result<Answer<'_>> {
        Answer::new(&self.model, &self.tokenizer, self.request(chat, options)?)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::AssistantOptions;
    use super::*;
    use crate::model::VisionFeatures;
    use crate::multimodal::IMAGE_TOKEN_INDEX;
    use crate::preprocess::{DecodeOptions, decode_file};

    #[test]
    fn an_image_mark_in_an_answer_is_text() {
        let model =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models/vicuna-tiny");
        let assistant =
            Assistant::load(&model, &Device::flex(), &AssistantOptions::default(), &mut |_| {}).unwrap();
        let photo = decode_file(model.join("photo.png"), &DecodeOptions::default()).unwrap();
        let options = GenerateOptions { max_new_tokens: 2, ..assistant.generate_options() };
        let mut chat = Chat::new();
        chat.show(assistant.encode_image(&photo).unwrap());
        chat.ask("What is this?").unwrap();
        let marks = |ids: &[i64]| ids.iter().filter(|&&id| id == IMAGE_TOKEN_INDEX).count();
        let before = assistant.request(&chat, &options).unwrap().input_ids;
        chat.answered("An <image> of a cat.");
        chat.ask("And now?").unwrap();
        let request = assistant.request(&chat, &options).unwrap();
        assert_eq!((marks(&before), marks(&request.input_ids)), (1, 1));
        // The words are all there, as the tokenizer writes them.
        let ids: Vec<u32> = request.input_ids.iter().filter_map(|&id| u32::try_from(id).ok()).collect();
        let said = assistant.tokenizer.decode(&ids, true).unwrap();
        assert!(said.contains("An <image> of a cat."), "{said}");
        assert!(assistant.prompt(&chat).unwrap().contains("ASSISTANT: An <image> of a cat."));
        assert!(assistant.answer(&chat, &options).unwrap().text().is_ok());
        assert_eq!(chat.turns()[1].value, "An <image> of a cat.");
    }

    #[test]
    fn pictures_without_a_question_can_be_withdrawn() {
        let mut chat = Chat::new();
        let seen = || burn::tensor::Tensor::zeros([1, 1, 1], &Device::flex());
        let image = || EncodedImage::from(VisionFeatures { images: seen(), crops: None });
        chat.show(image());
        chat.ask("One?").unwrap();
        chat.show(image());
        chat.show(image());
        assert_eq!((chat.withdraw(), chat.num_images(), chat.withdraw()), (2, 1, 0));
        chat.ask("Two?").unwrap();
        assert_eq!(chat.turns()[1].value, "Two?");
    }
}
