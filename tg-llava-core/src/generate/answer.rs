use super::{Engine, Event, FinishReason, Request, RequestId};
use crate::error::{Error, Result};
use crate::model::TgLlava;
use crate::tokenizer::TextTokenizer;

/// One answer as an iterator of text pieces: one a token, which never splits a character and may be empty.
///
/// An [`Engine`] of one. Dropping it ends the work, so a caller that wants to interrupt just stops iterating.
#[derive(Debug)]
pub struct Answer<'m> {
    engine: Engine<'m>,
    prompt_len: usize,
    token_ids: Vec<i64>,
    finish: Option<FinishReason>,
}

impl<'m> Answer<'m> {
    /// Begins to answer `request`.
    ///
    /// # Errors
    /// As [`Engine::admit`], and [`Error::Request`] where it asks for several answers.
    pub fn new(model: &'m TgLlava, tokenizer: &'m TextTokenizer, request: Request) -> Result<Self> {
        if request.options.num_answers > 1 {
            let count = request.options.num_answers;
            return Err(Error::Request(format!("num_answers = {count}, but a single answer is read here")));
        }
        let mut engine = Engine::new(model, Some(tokenizer));
        let id: RequestId = engine.admit(request)?;
        let prompt_len = engine.prompt_len(id).unwrap_or_default();
        Ok(Self { engine, prompt_len, token_ids: Vec::new(), finish: None })
    }

    /// Length of the prompt in tokens; pictures count with all of theirs.
    pub fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    /// Tokens so far, the ending one included.
    pub fn token_ids(&self) -> &[i64] {
        &self.token_ids
    }

    /// Why the answer ended; `None` while it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// The whole rest as one text, without trailing white space.
    ///
    /// # Errors
    /// The first error on the way.
    pub fn text(&mut self) -> Result<String> {
        let pieces: Result<String> = self.by_ref().collect();
        Ok(pieces?.trim_end().to_owned())
    }
}

impl Iterator for Answer<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.engine.is_empty() {
            return None;
        }
        let mut piece = String::new();
        for event in self.engine.step() {
            match event {
                Event::Token { token, text, .. } => {
                    self.token_ids.push(token);
                    piece += &text;
                }
                Event::Finished { reason, text, .. } => {
                    self.finish = Some(reason);
                    piece += &text;
                }
                Event::Failed { error, .. } => return Some(Err(error)),
            }
        }
        Some(Ok(piece))
    }
}
