use super::job::Job;
use super::text_stream::TextStream;
use super::{Event, FinishReason, GenerateOptions, Logprobs, RequestId, Sampler};
use crate::error::{Error, Result};
use crate::tokenizer::TextTokenizer;

/// An answer that grows.
#[derive(Debug)]
pub(super) struct Row<'m> {
    /// The request, and which of its answers.
    pub of: (RequestId, usize),
    /// Its place in the cache, which holds all but the last of its tokens.
    pub slot: usize,
    /// Tokens so far, the ending one included.
    pub tokens: Vec<i64>,
    /// Whether it is complete.
    pub done: bool,
    /// Longest answer, in tokens.
    pub budget: usize,
    pub sampler: Sampler,
    /// The answer as text, where there is a tokenizer.
    pub text: Option<TextStream<'m>>,
}

impl<'m> Row<'m> {
    /// An answer to `job` that begins.
    pub fn new(job: &Job<'_>, answer: usize, slot: usize, tokenizer: Option<&'m TextTokenizer>) -> Self {
        Self {
            of: (job.id, answer),
            slot,
            tokens: Vec::new(),
            done: false,
            budget: job.budget,
            sampler: Sampler::new(&job.options, answer),
            text: tokenizer.map(|tokenizer| TextStream::new(tokenizer, &job.options.stop_strings)),
        }
    }

    /// Chooses the next token by `scores` and tells what came of it.
    ///
    /// # Errors
    /// Where the scores are no numbers, or the tokens are no text.
    pub fn advance(
        &mut self,
        scores: Vec<f32>,
        options: &GenerateOptions,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        check(&scores, self.tokens.len() + 1)?;
        let token = self.sampler.next(&scores, &self.tokens);
        let logprobs = options.top_logprobs.map(|count| Logprobs::new(&scores, token, count));
        self.push(token, (scores, logprobs), options, events)
    }

    /// Takes `token` as the next one and tells what came of it.
    ///
    /// # Errors
    /// Where the tokens are no text.
    pub fn push(
        &mut self,
        token: i64,
        (scores, logprobs): (Vec<f32>, Option<Logprobs>),
        options: &GenerateOptions,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        self.tokens.push(token);
        let ended = options.eos_token_ids.contains(&token);
        let (mut text, mut stopped) = (String::new(), false);
        if let Some(stream) = self.text.as_mut().filter(|_| !ended) {
            text = stream.push(token)?;
            stopped = stream.stopped();
        }
        let (request, answer) = self.of;
        events.push(Event::Token { request, answer, token, scores, logprobs, text });
        let reason = match (ended, stopped) {
            (true, _) => FinishReason::EndOfTurn,
            (_, true) => FinishReason::StopString,
            _ if self.tokens.len() >= self.budget => FinishReason::Length,
            _ => return Ok(()),
        };
        self.done = true;
        let rest = self.text.as_mut().map(TextStream::finish).transpose()?.unwrap_or_default();
        // A stop string may end with what was held back.
        let stopped = self.text.as_ref().is_some_and(TextStream::stopped);
        let reason = if stopped { FinishReason::StopString } else { reason };
        events.push(Event::Finished { request, answer, reason, text: rest });
        Ok(())
    }
}

/// Whether one can choose by `scores`, those of the token of this number.
pub(super) fn check(scores: &[f32], number: usize) -> Result<()> {
    match scores.iter().find(|score| score.is_nan() || **score == f32::INFINITY) {
        Some(score) => Err(Error::Request(format!(
            "the scores of token {number} hold {score}, so there is no answer; are the weights damaged, or too large for \
             this number format?"
        ))),
        None => Ok(()),
    }
}
