use std::ops::Range;

use burn::tensor::Tensor;

use super::beams::BeamSearch;
use super::row::Row;
use super::{Event, GenerateOptions, Prompt, RequestId};
use crate::error::Error;

/// A request that waits or is being answered.
#[derive(Debug)]
pub(super) struct Job<'m> {
    pub id: RequestId,
    pub options: GenerateOptions,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// Longest answer, in tokens.
    pub budget: usize,
    pub stage: Stage<'m>,
    /// Whether it failed.
    pub failed: bool,
}

/// How far a request has come.
#[derive(Debug)]
pub(super) enum Stage<'m> {
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
    /// Answers that are not complete.
    Answering(Vec<Row<'m>>),
    /// A search for answers as wholes.
    Searching {
        /// The search.
        search: BeamSearch<'m>,
        /// Places of its running beams in the cache.
        slots: Vec<usize>,
    },
}

impl Job<'_> {
    /// Whether there is nothing left to do.
    pub fn is_done(&self) -> bool {
        self.failed || matches!(&self.stage, Stage::Answering(rows) if rows.is_empty())
    }

    /// Places in the cache.
    pub fn slots(&self) -> Vec<usize> {
        match &self.stage {
            Stage::Waiting(_) => Vec::new(),
            Stage::Reading { slot, .. } => vec![*slot],
            Stage::Answering(rows) => rows.iter().map(|row| row.slot).collect(),
            Stage::Searching { slots, .. } => slots.clone(),
        }
    }

    /// Tokens of the prompt that are not in the cache.
    pub fn unread(&self) -> Range<usize> {
        match self.stage {
            _ if self.failed => 0..0,
            Stage::Waiting(_) => 0..self.prompt_len,
            Stage::Reading { read, .. } => read..self.prompt_len,
            Stage::Answering(_) | Stage::Searching { .. } => 0..0,
        }
    }

    /// Texts that wait for their next token: the slot in the cache, and the last token, which is not in it.
    pub fn texts(&self) -> Vec<(usize, i64)> {
        match &self.stage {
            Stage::Waiting(_) | Stage::Reading { .. } => Vec::new(),
            Stage::Answering(rows) => {
                rows.iter().filter_map(|row| Some((row.slot, *row.tokens.last()?))).collect()
            }
            Stage::Searching { search, slots } => slots.iter().copied().zip(search.last_tokens()).collect(),
        }
    }

    /// Brings the answers one token on by the scores of each, or by those behind the prompt, which all share.
    pub fn advance(&mut self, mut scores: Vec<Vec<f32>>, events: &mut Vec<Event>) {
        let Stage::Answering(rows) = &mut self.stage else { return };
        if scores.len() == 1 {
            scores.resize(rows.len(), scores[0].clone());
        }
        for (row, scores) in rows.iter_mut().zip(scores) {
            if let Err(error) = row.advance(scores, &self.options, events) {
                return self.fail(error, events);
            }
        }
    }

    /// Ends the request without an answer.
    pub fn fail(&mut self, error: Error, events: &mut Vec<Event>) {
        self.failed = true;
        events.push(Event::Failed { request: self.id, error });
    }
}
