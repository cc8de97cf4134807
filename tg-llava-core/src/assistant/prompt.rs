use crate::config::ModelConfig;
use crate::conversation::{Conversation, GuideTurn, ImageMarks, Template, Turn, guide_text};
use crate::error::Result;
use crate::generate::{GenerateOptions, Request};
use crate::model::EncodedImage;
use crate::tokenizer::{GuideCut, GuideTokenizer, IMAGE_TAG, TextTokenizer};

/// `<image>` that is text and no picture, while a prompt is put together. A prompt that itself holds this, with a
/// character of Unicode's private area, would have the tag as text in its place.
const TEXT_TAG: &str = "<\u{F8FF}image>";

/// From a conversation to a [`Request`]: how the prompt is written, tokenized and guided.
#[derive(Debug, Clone, Copy)]
pub struct PromptWriter<'a> {
    /// The layout of the conversation.
    pub template: &'a Template,
    /// The decoder's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// The text tower's tokenizer, where there is a text tower.
    pub guide: Option<&'a GuideTokenizer>,
    /// Which questions guide the pictures.
    pub guide_turn: GuideTurn,
    /// What is done with a guide that is too long for the text tower.
    pub guide_cut: GuideCut,
    /// What is written around a picture's mark.
    pub marks: ImageMarks,
}

impl<'a> PromptWriter<'a> {
    /// How prompts of the model `config` are written.
    pub fn new(
        config: &ModelConfig,
        template: &'a Template,
        tokenizer: &'a TextTokenizer,
        guide: Option<&'a GuideTokenizer>,
    ) -> Self {
        let mm = config.multimodal.as_ref();
        Self {
            template,
            tokenizer,
            guide,
            guide_turn: mm.map(|mm| mm.guide_turn).unwrap_or_default(),
            guide_cut: GuideCut::KeepEnd,
            marks: match mm.is_some_and(|mm| mm.use_im_start_end) {
                true => ImageMarks::StartEnd,
                false => ImageMarks::None,
            },
        }
    }

    /// The prompt of `turns`, the last of which waits for its answer, as text. `<image>` stands for a picture.
    ///
    /// # Errors
    /// Where the template cannot hold the conversation.
    pub fn text(&self, turns: &[Turn]) -> Result<String> {
        Ok(self.pieces(turns)?.join(IMAGE_TAG))
    }

    /// The request for the answer that `turns` wait for, with `images` in the order of their marks.
    ///
    /// # Errors
    /// Where the template cannot hold the conversation, nobody asks anything, or a text cannot be tokenized.
    pub fn request(
        &self,
        turns: &[Turn],
        images: Vec<EncodedImage>,
        options: GenerateOptions,
    ) -> Result<Request> {
        let pieces = self.pieces(turns)?;
        let input_ids = self.tokenizer.encode_between_images(pieces.iter().map(String::as_str))?.ids;
        let mut request = Request { images, ..Request::text(input_ids, options) };
        if !request.images.is_empty() {
            self.guide(&mut request, &self.guide_text(turns)?)?;
        }
        Ok(request)
    }

    /// The text of `turns` that guides their pictures.
    ///
    /// # Errors
    /// Where nobody asks anything.
    pub fn guide_text(&self, turns: &[Turn]) -> Result<String> {
        Ok(guide_text(turns, self.guide_turn)?.replace(TEXT_TAG, IMAGE_TAG))
    }

    /// Lets `text` guide the pictures of `request`; nothing where there is no text tower.
    ///
    /// # Errors
    /// Where the text cannot be tokenized.
    pub fn guide(&self, request: &mut Request, text: &str) -> Result<()> {
        if let Some(guide) = self.guide {
            request.guide_ids = guide.encode(text, self.guide_cut)?;
            request.guide_pad = guide.pad_id();
        }
        Ok(())
    }

    /// The prompt's text between its pictures.
    fn pieces(&self, turns: &[Turn]) -> Result<Vec<String>> {
        let mark = match (self.template.wraps_images(), self.marks) {
            (true, _) => "<Image><image></Image>",
            (false, ImageMarks::StartEnd) => "<im_start><image><im_end>",
            (false, ImageMarks::None) => IMAGE_TAG,
        };
        let mut conversation = Conversation::new(self.template);
        for turn in turns {
            conversation.push(turn.from.role(), turn.value.replace(IMAGE_TAG, mark));
        }
        conversation.push_open_answer();
        let text = conversation.prompt()?.text;
        Ok(text.split(IMAGE_TAG).map(|piece| piece.replace(TEXT_TAG, IMAGE_TAG)).collect())
    }
}

/// `text` with every `<image>` in it as text that stands for no picture, for the turns of a [`PromptWriter`].
pub fn without_pictures(text: &str) -> String {
    text.replace(IMAGE_TAG, TEXT_TAG)
}
