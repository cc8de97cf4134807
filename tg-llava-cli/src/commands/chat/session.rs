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
pub struct ChatSession {
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

impl From<generate::FinishReason> for FinishReason {
    fn from(reason: generate::FinishReason) -> Self {
        match reason {
            generate::FinishReason::EndOfTurn => Self::EndOfTurn,
            generate::FinishReason::StopString => Self::StopString,
            generate::FinishReason::Length => Self::Length,
        }
    }
}

impl ChatSession {
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

    /// Forgets the pictures that no question was asked about yet.
    pub fn withdraw(&mut self) {
        let forgotten = self.chat.withdraw();
        self.pictures.truncate(self.pictures.len() - forgotten);
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
        let mut answer = self.assistant.answer(&self.chat, &self.options)?;
        let mut text = String::new();
        while !busy.interrupted() {
            let Some(piece) = answer.next() else { break };
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
        text.truncate(text.trim_end().len());
        Ok(AnswerRecord {
            answer: text,
            tokens: answer.token_ids().len(),
            finish_reason: answer.finish_reason().map_or(FinishReason::Interrupted, FinishReason::from),
            prompt_tokens: answer.prompt_len(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}
