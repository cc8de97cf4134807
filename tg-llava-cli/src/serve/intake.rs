//! From a request as it came to what the engine takes: everything that needs no device, so that it runs beside the model.

use tg_llava_core::assistant::{Assistant, PromptWriter, without_pictures};
use tg_llava_core::config::{ModelConfig, MultimodalConfig};
use tg_llava_core::conversation::{Template, Turn};
use tg_llava_core::generate::{GenerateOptions, Logprobs, Request};
use tg_llava_core::multimodal::IMAGE_TOKEN_INDEX;
use tg_llava_core::preprocess::{DecodeOptions, ImageProcessor, PreparedImage, decode_bytes};
use tg_llava_core::tokenizer::{GuideTokenizer, IMAGE_TAG, TextTokenizer};

use super::api::{ApiError, ChatRequest, Message, Part, Role, TokenLogprob};
use super::media::{Media, invalid_image};
use crate::failure::Failure;

/// What OpenAI writes for a probability of zero, since JSON knows no infinity.
const LEAST_LOGPROB: f64 = -9999.0;

/// What requests are read with: a checkpoint's tokenizers, template and picture processing, and the limits.
pub struct Intake {
    config: ModelConfig,
    template: Template,
    tokenizer: TextTokenizer,
    guide_tokenizer: Option<GuideTokenizer>,
    processor: Option<ImageProcessor>,
    defaults: GenerateOptions,
    limits: PictureLimits,
    /// Bytes of the longest token.
    longest_token: usize,
}

/// Which pictures are taken.
#[derive(Debug, Clone)]
pub struct PictureLimits {
    /// Where they may be.
    pub media: Media,
    /// How they are decoded, and how large they may be.
    pub decode: DecodeOptions,
    /// Most pictures of a request.
    pub max_images: usize,
}

/// An encoded picture, and the field that named it.
pub struct Fetched {
    bytes: Vec<u8>,
    param: String,
}

/// A request for the engine, whose pictures the vision tower has yet to look at.
pub struct Work {
    /// Without pictures.
    pub request: Request,
    /// Those pictures, in their order.
    pub pictures: Vec<PreparedImage>,
    /// Length of the prompt in tokens; pictures count with all of theirs.
    pub prompt_tokens: usize,
}

impl Intake {
    /// For a loaded checkpoint.
    pub fn new(assistant: &Assistant, limits: PictureLimits) -> Self {
        let ids = 0..u32::try_from(assistant.tokenizer.vocab_size()).unwrap_or(u32::MAX);
        let lengths = ids.filter_map(|id| assistant.tokenizer.token_bytes(id)).map(|bytes| bytes.len());
        Self {
            longest_token: lengths.max().unwrap_or(1).max(1),
            config: assistant.model.config().clone(),
            template: assistant.template.clone(),
            tokenizer: assistant.tokenizer.clone(),
            guide_tokenizer: assistant.guide_tokenizer.clone(),
            processor: assistant.processor.clone(),
            defaults: assistant.generate_options(),
            limits,
        }
    }

    /// The pictures that `request` names, encoded. May wait for the network.
    ///
    /// # Errors
    /// Where there are too many, or one cannot be had.
    pub fn fetch(&self, request: &ChatRequest) -> Result<Vec<Fetched>, ApiError> {
        let parts = request.turns.iter().flat_map(|turn| &turn.parts);
        let images = parts.filter_map(|part| match part {
            Part::Image { url, param } => Some((url, param)),
            Part::Text(_) => None,
        });
        let most = self.limits.max_images;
        let mut fetched = Vec::new();
        for (url, param) in images {
            if fetched.len() == most {
                let message = format!("a request may show at most {most} picture(s)");
                return Err(ApiError::field(param, "too_many_images", message));
            }
            fetched.push(Fetched { bytes: self.limits.media.read(url, param)?, param: param.clone() });
        }
        Ok(fetched)
    }

    /// What the engine shall answer.
    ///
    /// # Errors
    /// Where a picture cannot be decoded, or the prompt does not fit the context.
    pub fn prepare(&self, request: &ChatRequest, fetched: Vec<Fetched>) -> Result<Work, ApiError> {
        self.check_bytes(request)?;
        let template = match &request.system {
            Some(system) => &self.template.with_system(system),
            None => &self.template,
        };
        let guide = self.guide_tokenizer.as_ref();
        let writer = PromptWriter::new(&self.config, template, &self.tokenizer, guide);
        let turns = turns(&request.turns, |message| written(message, IMAGE_TAG));
        let options = request.options(self.defaults.clone());
        let mut engine = writer.request(&turns, Vec::new(), options).map_err(refusal)?;

        let image_tokens = self.config.multimodal.as_ref().map_or(0, MultimodalConfig::num_image_tokens);
        let length = |id: &i64| if *id == IMAGE_TOKEN_INDEX { image_tokens } else { 1 };
        let prompt_tokens: usize = engine.input_ids.iter().map(length).sum();
        if prompt_tokens >= self.config.llm.context_length() {
            return Err(self.too_long("messages", &prompt_tokens.to_string()));
        }
        if !fetched.is_empty() {
            let text = match &request.guide {
                Some(guide) => guide.clone(),
                None => writer.guide_text(&guiding(&request.turns)).map_err(refusal)?,
            };
            writer.guide(&mut engine, &text).map_err(refusal)?;
        }
        let pictures = fetched.into_iter().map(|fetched| self.picture(fetched)).collect::<Result<_, _>>()?;
        Ok(Work { request: engine, pictures, prompt_tokens })
    }

    /// Refuses texts that are too long whatever their tokens are: to make tokens of megabytes takes long.
    fn check_bytes(&self, request: &ChatRequest) -> Result<(), ApiError> {
        let turns: usize = request.turns.iter().map(|turn| turn.text().len()).sum();
        let system = request.system.as_ref().map_or(0, String::len);
        let guide = request.guide.as_ref().map_or(0, String::len);
        for (param, bytes) in [("messages", turns + system), ("guide", guide)] {
            let tokens = bytes / self.longest_token;
            if tokens > self.config.llm.context_length() {
                return Err(self.too_long(param, &format!("at least {tokens}")));
            }
        }
        Ok(())
    }

    fn too_long(&self, param: &str, tokens: &str) -> ApiError {
        let context = self.config.llm.context_length();
        let message = format!(
            "{param}: {tokens} tokens, and the model's context holds {context}, the answer included; shorten the text or show fewer \
             pictures"
        );
        ApiError::field(param, "context_length_exceeded", message)
    }

    fn picture(&self, fetched: Fetched) -> Result<PreparedImage, ApiError> {
        let Fetched { bytes, param } = fetched;
        let (Some(processor), Some(mm)) = (&self.processor, &self.config.multimodal) else {
            return Err(invalid_image(&param, "this model sees no pictures"));
        };
        let picture = decode_bytes(&bytes, "the picture", &self.limits.decode).map_err(|error| {
            let message = Failure::from(error).message().unwrap_or_default();
            invalid_image(&param, message.strip_prefix("the picture: ").unwrap_or(&message))
        })?;
        Ok(processor.prepare(&picture, mm.aspect_ratio, mm.detail_source))
    }

    /// Whether `token` ends answers.
    pub fn is_end(&self, token: i64) -> bool {
        self.defaults.eos_token_ids.contains(&token)
    }

    /// The log-probabilities of tokens in a row whose text has become certain, with the bytes that each has in that text.
    pub fn in_text(&self, tokens: Vec<(i64, TokenLogprob)>) -> Vec<TokenLogprob> {
        let ids: Vec<u32> = tokens.iter().map(|&(id, _)| u32::try_from(id).unwrap_or(u32::MAX)).collect();
        let bytes = self.tokenizer.bytes_in_text(&ids);
        tokens.into_iter().zip(bytes).map(|((_, token), bytes)| TokenLogprob { bytes, ..token }).collect()
    }

    /// A token with its log-probability and its alternatives.
    pub fn token_logprob(&self, token: i64, logprobs: &Logprobs) -> TokenLogprob {
        let top = logprobs.top.iter().map(|&(token, logprob)| self.alternative(token, logprob)).collect();
        TokenLogprob { top_logprobs: Some(top), ..self.alternative(token, logprobs.chosen) }
    }

    fn alternative(&self, token: i64, logprob: f64) -> TokenLogprob {
        let bytes =
            u32::try_from(token).ok().and_then(|id| self.tokenizer.token_bytes(id)).unwrap_or_default();
        let token = String::from_utf8_lossy(&bytes).into_owned();
        TokenLogprob { token, logprob: logprob.max(LEAST_LOGPROB), bytes, top_logprobs: None }
    }
}

/// A message as a turn's text: its parts, a line each, pictures as `image`.
fn written(message: &Message, image: &str) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => without_pictures(text),
        Part::Image { .. } => image.to_owned(),
    };
    message.parts.iter().map(part).collect::<Vec<_>>().join("\n")
}

fn turns(messages: &[Message], text: impl Fn(&Message) -> String) -> Vec<Turn> {
    let turn = |message: &Message| match message.role {
        Role::Assistant => Turn::gpt(text(message)),
        Role::User | Role::System => Turn::human(text(message)),
    };
    messages.iter().map(turn).collect()
}

/// The turns without their pictures, whose text guides.
fn guiding(messages: &[Message]) -> Vec<Turn> {
    turns(messages, |message| without_pictures(&message.text()))
}

/// What the library says against a request.
fn refusal(error: tg_llava_core::Error) -> ApiError {
    ApiError::field("messages", "invalid_value", error.to_string())
}
