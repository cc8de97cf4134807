use burn::tensor::{DType, Tensor};

use super::row::Row;
use super::text_stream::TextStream;
use super::{Prompt, Request, Sampler};
use crate::error::{Error, Result};
use crate::llm::TokenBatch;
use crate::model::TgLlava;
use crate::nn::{KvCache, cast_to};
use crate::tokenizer::TextTokenizer;

/// Names a request while an [`Engine`] answers it; never used twice by one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn.
    EndOfTurn,
    /// A stop string came up.
    StopString,
    /// The token budget or the context is used up.
    Length,
}

/// What a step of an [`Engine`] brought.
#[derive(Debug)]
pub enum Event {
    /// A request's next token.
    Token {
        /// The request.
        request: RequestId,
        /// The token.
        token: i64,
        /// The model's scores of the whole vocabulary that it was chosen by.
        scores: Vec<f32>,
        /// The text that became certain: whole characters, maybe none.
        text: String,
    },
    /// A request's answer is complete; the engine has forgotten it.
    Finished {
        /// The request.
        request: RequestId,
        /// Why.
        reason: FinishReason,
        /// The text that was held back until now.
        text: String,
    },
    /// A request's answer ended with an error; the engine has forgotten it. The others go on.
    Failed {
        /// The request.
        request: RequestId,
        /// What went wrong.
        error: Error,
    },
}

/// Answers any number of requests, token by token: the one way from a prompt to an answer.
///
/// Requests join with [`Engine::admit`], which reads the prompt, and leave when they are complete or cancelled, while
/// the others run. Each answer is that of the request alone, since no row sees another: attention goes row by row,
/// and where the backend sums a row's products in an order that depends on the number of rows, as many go together as
/// keep the order of one (see [`rows_alike`](crate::nn::rows_alike)).
#[derive(Debug)]
pub struct Engine<'m> {
    model: &'m TgLlava,
    tokenizer: Option<&'m TextTokenizer>,
    pub(super) cache: KvCache,
    rows: Vec<Row<'m>>,
    admitted: u64,
    rows_at_once: usize,
}

impl<'m> Engine<'m> {
    /// An engine without requests. Without a `tokenizer`, events have no text.
    pub fn new(model: &'m TgLlava, tokenizer: Option<&'m TextTokenizer>) -> Self {
        Self {
            model,
            tokenizer,
            cache: model.llm.new_cache(),
            rows: Vec::new(),
            admitted: 0,
            rows_at_once: model.llm.rows_alike(),
        }
    }

    /// Takes a request and reads its prompt; [`Engine::step`] answers it.
    ///
    /// # Errors
    /// [`Error::Request`] where an option is out of range, there are stop strings but no tokenizer, or the prompt leaves
    /// no room in the context; and where prompt, pictures and model do not fit together. The engine is as before then.
    pub fn admit(&mut self, request: Request) -> Result<RequestId> {
        let options = request.options.clone();
        let text = self.tokenizer.map(|tokenizer| TextStream::new(tokenizer, &options.stop_strings));
        if text.is_none() && !options.stop_strings.is_empty() {
            return Err(Error::Request("stop strings need a tokenizer".into()));
        }
        let Prompt { inputs_embeds, budget } = request.prepare(self.model)?;
        let [_, len, width] = inputs_embeds.dims();
        let slot = self.cache.take(len + budget);
        let tokens = TokenBatch { positions: vec![(0..len).collect()], mask: vec![vec![true; len]] };
        let states = self.model.llm.forward(inputs_embeds, &tokens, self.cache.rows(&[slot]));
        let first = self.model.llm.logits(states.narrow(1, len - 1, 1).reshape([1, width]));
        let id = RequestId(self.admitted);
        self.admitted += 1;
        self.rows.push(Row {
            id,
            slot,
            prompt_len: len,
            first: Some(first),
            answer: Vec::new(),
            done: false,
            sampler: Sampler::new(&options),
            eos_token_ids: options.eos_token_ids,
            budget,
            text,
        });
        Ok(id)
    }

    /// Ends a request before its answer is complete; whether it was still running.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let Some(place) = self.rows.iter().position(|row| row.id == request) else { return false };
        self.cache.free(self.rows.remove(place).slot);
        true
    }

    /// Requests that are being answered.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is being answered.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Length of the prompt of a running request, in tokens; pictures count with all of theirs.
    pub fn prompt_len(&self, request: RequestId) -> Option<usize> {
        self.rows.iter().find(|row| row.id == request).map(|row| row.prompt_len)
    }

    /// One more token for every request.
    pub fn step(&mut self) -> Vec<Event> {
        let mut groups: Vec<(Vec<usize>, Tensor<2>)> = Vec::new();
        let mut running = Vec::new();
        for (place, row) in self.rows.iter_mut().enumerate() {
            match row.first.take() {
                Some(scores) => groups.push((vec![place], scores)),
                None => running.push(place),
            }
        }
        for places in running.chunks(self.rows_at_once) {
            groups.push((places.to_vec(), self.read_last_tokens(places)));
        }
        let mut events = Vec::new();
        for (places, scores) in groups {
            let vocab = scores.dims()[1];
            match cast_to(scores, DType::F32).try_into_vec_as::<f32>() {
                Ok(scores) => {
                    for (place, scores) in places.into_iter().zip(scores.chunks_exact(vocab)) {
                        self.rows[place].advance(scores.to_vec(), &mut events);
                    }
                }
                Err(error) => {
                    let message = format!("the device could not compute the next token: {error}");
                    for place in places {
                        self.rows[place].fail(Error::Request(message.clone()), &mut events);
                    }
                }
            }
        }
        for row in self.rows.extract_if(.., |row| row.done) {
            self.cache.free(row.slot);
        }
        events
    }

    /// Reads the last token of some rows; the scores of the next ones, `[places, vocab_size]`.
    fn read_last_tokens(&mut self, places: &[usize]) -> Tensor<2> {
        let rows = || places.iter().map(|&place| &self.rows[place]);
        let last: Vec<i64> = rows().filter_map(|row| row.answer.last().copied()).collect();
        let slots: Vec<usize> = rows().map(|row| row.slot).collect();
        let llm = &self.model.llm;
        let tokens = TokenBatch {
            positions: slots.iter().map(|&slot| vec![self.cache.len(slot)]).collect(),
            mask: vec![vec![true]; slots.len()],
        };
        let embeds = llm.embed(&last);
        let [count, width] = embeds.dims();
        let states = llm.forward(embeds.reshape([count, 1, width]), &tokens, self.cache.rows(&slots));
        llm.logits(states.reshape([count, width]))
    }
}
