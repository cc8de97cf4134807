//! A loaded checkpoint, what was said and shown so far, and the one way to ask it something.

use std::time::Instant;

use anyhow::Error;
use serde::Serialize;
use tg_llava_core::assistant::{Assistant, Chat};
use tg_llava_core::conversation::Turn;
use tg_llava_core::generate::{self, GenerateOptions};
use tg_llava_core::preprocess::{DecodeOptions, RgbImage};

use crate::console::{Console, print, print_json};
use crate::failure::Failure;
use crate::interrupt::{Busy, Interrupt};
use crate::picture::PictureSource;
use crate::progress::Progress;

/// One conversation.
pub struct Session {
    assistant: Assistant,
    options: GenerateOptions,
    decode: DecodeOptions,
    /// Where messages go.
    pub console: Console,
    chat: Chat,
    pictures: Vec<String>,
}

/// One answer, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AnswerRecord {
    /// The text.
    pub answer: String,
    /// Number of tokens generated, the ending one included.
    pub tokens: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Length of what the model read before, in tokens; pictures count with all of theirs.
    pub prompt_tokens: usize,
    /// Time to read the prompt and generate the answer.
    pub seconds: f64,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn.
    EndOfTurn,
    /// A stop string came up.
    StopString,
    /// The token budget or the context is used up.
    Length,
    /// Ctrl-C.
    Interrupted,
}

impl Session {
    /// Nothing said, nothing shown.
    pub fn new(
        assistant: Assistant,
        options: GenerateOptions,
        decode: DecodeOptions,
        console: Console,
    ) -> Self {
        Self { assistant, options, decode, console, chat: Chat::new(), pictures: Vec::new() }
    }

    /// Shows a picture with the next question.
    pub fn show(&mut self, source: &PictureSource, picture: &RgbImage) -> Result<(), Failure> {
        let encoded = {
            let _spinner = Progress::spinner(&self.console, &format!("looking at {source}"));
            self.assistant.encode_image(picture)?
        };
        self.chat.show(encoded);
        self.pictures.push(source.to_string());
        Ok(())
    }

    /// Reads a picture and shows it with the next question.
    pub fn fetch(&mut self, source: &PictureSource) -> Result<(), Failure> {
        let picture = {
            let _spinner = Progress::spinner(&self.console, &format!("reading {source}"));
            source.read(&self.decode)?
        };
        self.show(source, &picture)
    }

    /// Forgets turns and pictures.
    pub fn reset(&mut self) {
        self.chat = Chat::new();
        self.pictures.clear();
    }

    /// What was said.
    pub fn turns(&self) -> &[Turn] {
        self.chat.turns()
    }

    /// Where the pictures came from, in the order they were shown.
    pub fn pictures(&self) -> &[String] {
        &self.pictures
    }

    /// Name of the conversation template.
    pub fn template(&self) -> &'static str {
        self.assistant.template.name
    }

    /// Asks a question and prints the answer while it grows, or as JSON once it is complete. A question that
    /// fails is taken back, so that the conversation can go on.
    pub fn ask(&mut self, question: &str, interrupt: &Interrupt) -> Result<AnswerRecord, Failure> {
        self.chat.ask(question)?;
        let busy = interrupt.busy();
        let record = match self.generate(&busy) {
            Ok(record) => record,
            Err(failure) => {
                self.chat.take_back();
                return Err(failure);
            }
        };
        match record.answer.is_empty() && record.finish_reason == FinishReason::Interrupted {
            true => self.chat.take_back(),
            false => self.chat.answered(&record.answer),
        }
        match self.console.json {
            true => print_json(&record, false)?,
            false => print("\n")?,
        }
        self.console.detail(format_args!(
            "{} prompt tokens, {} answer tokens in {:.1} s",
            record.prompt_tokens, record.tokens, record.seconds
        ));
        Ok(record)
    }

    fn generate(&self, busy: &Busy<'_>) -> Result<AnswerRecord, Failure> {
        let start = Instant::now();
        let mut spinner = Some(Progress::spinner(&self.console, "thinking"));
        let prompt_tokens = self.prompt_tokens()?;
        let mut answer = self.assistant.answer(&self.chat, &self.options)?;
        let mut text = String::new();
        let mut finish = None;
        while finish.is_none() {
            if busy.interrupted() {
                finish = Some(FinishReason::Interrupted);
                break;
            }
            match answer.next() {
                Some(piece) => {
                    let piece = piece.map_err(|e| Failure::Run(Error::new(e)))?;
                    if !piece.is_empty() {
                        spinner.take();
                    }
                    // White space at the end is not shown until something follows it.
                    let shown = text.trim_end().len();
                    text += &piece;
                    if !self.console.json {
                        print(&text[shown..text.trim_end().len()])?;
                    }
                }
                None => {
                    finish = Some(match answer.finish_reason() {
                        Some(generate::FinishReason::EndOfTurn) => FinishReason::EndOfTurn,
                        Some(generate::FinishReason::StopString) => FinishReason::StopString,
                        Some(generate::FinishReason::Length) | None => FinishReason::Length,
                    });
                }
            }
        }
        text.truncate(text.trim_end().len());
        Ok(AnswerRecord {
            answer: text,
            tokens: answer.token_ids().len(),
            finish_reason: finish.unwrap_or(FinishReason::Length),
            prompt_tokens,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn prompt_tokens(&self) -> Result<usize, Failure> {
        let prompt = self.assistant.prompt(&self.chat)?;
        let ids =
            self.assistant.tokenizer.encode_with_images(&prompt).map_err(tg_llava_core::Error::from)?.ids;
        let multimodal = self.assistant.model.config().multimodal.as_ref();
        let image_tokens = multimodal.map_or(0, |mm| mm.num_image_tokens());
        let pictures = self.chat.num_images();
        Ok(ids.len() - pictures.min(ids.len()) + pictures * image_tokens)
    }
}
