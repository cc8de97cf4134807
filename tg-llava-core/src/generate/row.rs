use std::ops::Range;

use burn::tensor::Tensor;

use super::engine::{Event, FinishReason, RequestId};
use super::text_stream::TextStream;
use super::{Prompt, Sampler};
use crate::error::{Error, Result};

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Row<'m> {
    pub id: RequestId,
    pub stage: Stage,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// Tokens so far, the ending one included.
    pub answer: Vec<i64>,
    /// Whether the answer is complete or has failed.
    pub done: bool,
    /// Tokens that end the answer.
    pub eos_token_ids: Vec<i64>,
    /// Longest answer, in tokens.
    pub budget: usize,
    pub sampler: Sampler,
    /// The answer as text, where there is a tokenizer.
    pub text: Option<TextStream<'m>>,
}

/// How far a request has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing was computed.
    Waiting(Box<Prompt>),
    /// The prompt's first tokens may be in the cache.
    Reading {
        /// Place in the cache.
        slot: usize,
        /// The whole prompt, `[1, prompt_len, hidden]`.
        inputs_embeds: Tensor<3>,
        /// Tokens that are in the cache.
        read: usize,
    },
    /// All but the last token of the answer is in the cache.
    Answering {
        /// Place in the cache.
        slot: usize,
    },
}

impl Row<'_> {
    /// Its place in the cache, once it has one.
    pub fn slot(&self) -> Option<usize> {
        match self.stage {
            Stage::Waiting(_) => None,
            Stage::Reading { slot, .. } | Stage::Answering { slot } => Some(slot),
        }
    }

    /// Tokens of the prompt that are not in the cache.
    pub fn unread(&self) -> Range<usize> {
        match self.stage {
            Stage::Waiting(_) => 0..self.prompt_len,
            Stage::Reading { read, .. } => read..self.prompt_len,
            Stage::Answering { .. } => self.prompt_len..self.prompt_len,
        }
    }

    /// Notes that `len` more tokens of the prompt are in the cache; whether these were the last ones.
    pub fn note_read(&mut self, len: usize) -> bool {
        let Stage::Reading { slot, read, .. } = &mut self.stage else { return false };
        *read += len;
        let ready = *read == self.prompt_len;
        if ready {
            self.stage = Stage::Answering { slot: *slot };
        }
        ready
    }

    /// Chooses the next token by `scores` and tells what came of it.
    pub fn advance(&mut self, scores: Vec<f32>, events: &mut Vec<Event>) {
        match self.choose(scores, events) {
            Ok(None) => {}
            Ok(Some((reason, text))) => {
                self.done = true;
                events.push(Event::Finished { request: self.id, reason, text });
            }
            Err(error) => self.fail(error, events),
        }
    }

    /// Ends the row without an answer.
    pub fn fail(&mut self, error: Error, events: &mut Vec<Event>) {
        self.done = true;
        events.push(Event::Failed { request: self.id, error });
    }

    /// The token goes to `events`; why the answer is complete with it and the rest of its text, where it is.
    fn choose(
        &mut self,
        scores: Vec<f32>,
        events: &mut Vec<Event>,
    ) -> Result<Option<(FinishReason, String)>> {
        if let Some(score) = scores.iter().find(|score| score.is_nan() || **score == f32::INFINITY) {
            return Err(Error::Request(format!(
                "the scores of token {} hold {score}, so there is no answer; are the weights damaged, or too large for \
                 this number format?",
                self.answer.len() + 1
            )));
        }
        let token = self.sampler.next(&scores, &self.answer);
        self.answer.push(token);
        let ended = self.eos_token_ids.contains(&token);
        let (mut text, mut stopped) = (String::new(), false);
        if let Some(stream) = self.text.as_mut().filter(|_| !ended) {
            text = stream.push(token)?;
            stopped = stream.stopped();
        }
        events.push(Event::Token { request: self.id, token, scores, text });
        let reason = match (ended, stopped) {
            (true, _) => FinishReason::EndOfTurn,
            (_, true) => FinishReason::StopString,
            _ if self.answer.len() >= self.budget => FinishReason::Length,
            _ => return Ok(None),
        };
        let rest = self.text.as_mut().map(TextStream::finish).transpose()?.unwrap_or_default();
        // A stop string may end with what was held back.
        let stopped = self.text.as_ref().is_some_and(TextStream::stopped);
        Ok(Some((if stopped { FinishReason::StopString } else { reason }, rest)))
    }
}
