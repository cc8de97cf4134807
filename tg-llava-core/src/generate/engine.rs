use burn::tensor::{DType, Tensor, TensorData};

use super::pictures::embed;
use super::prefill::Pieces;
use super::row::{Row, Stage};
use super::text_stream::TextStream;
use super::{Request, Sampler};
use crate::error::{Error, Result};
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

/// How an [`Engine`] shares its time between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// About how many tokens of prompts a step reads at most while answers are under way: short prompts are read
    /// together, and long ones in pieces, so that nobody's next token waits for a whole one. Answers do not depend on it.
    pub prefill_tokens: usize,
}

impl Default for EngineOptions {
    /// Enough tokens that the decoder's matrices are not what they wait for.
    fn default() -> Self {
        Self { prefill_tokens: 512 }
    }
}

/// Answers any number of requests, token by token: the one way from a prompt to an answer.
///
/// Requests join with [`Engine::admit`] and leave when they are complete or cancelled, while the others run; each
/// [`Engine::step`] reads on in the prompts that wait, and brings every answer one token on. Each answer is that of the
/// request alone, since no row sees another: attention goes row by row, and where the order in which the backend sums a
/// row's products depends on the number of rows, those go together that keep the order that they have alone (see
/// [`RowsAlike`](crate::nn::RowsAlike)).
#[derive(Debug)]
pub struct Engine<'m> {
    model: &'m TgLlava,
    tokenizer: Option<&'m TextTokenizer>,
    pub(super) cache: KvCache,
    rows: Vec<Row<'m>>,
    admitted: u64,
    pieces: Pieces,
}

/// Rows by their places in the engine, and the scores of their next tokens, `[places, vocab_size]`.
type Scored = (Vec<usize>, Tensor<2>);

impl<'m> Engine<'m> {
    /// An engine without requests. Without a `tokenizer`, events have no text.
    pub fn new(model: &'m TgLlava, tokenizer: Option<&'m TextTokenizer>) -> Self {
        Self::with_options(model, tokenizer, EngineOptions::default())
    }

    /// [`Engine::new`] with other options than the default ones.
    pub fn with_options(
        model: &'m TgLlava,
        tokenizer: Option<&'m TextTokenizer>,
        options: EngineOptions,
    ) -> Self {
        let pieces = Pieces { tokens: options.prefill_tokens, alike: model.llm.rows_alike() };
        Self { model, tokenizer, cache: model.llm.new_cache(), rows: Vec::new(), admitted: 0, pieces }
    }

    /// Takes a request, which [`Engine::step`] answers.
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
        let prompt = request.check(self.model)?;
        let id = RequestId(self.admitted);
        self.admitted += 1;
        self.rows.push(Row {
            id,
            prompt_len: prompt.len(),
            budget: prompt.budget,
            stage: Stage::Waiting(Box::new(prompt)),
            answer: Vec::new(),
            done: false,
            sampler: Sampler::new(&options),
            eos_token_ids: options.eos_token_ids,
            text,
        });
        Ok(id)
    }

    /// Ends a request before its answer is complete; whether it was still there.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let Some(place) = self.rows.iter().position(|row| row.id == request) else { return false };
        self.rows.remove(place).slot().into_iter().for_each(|slot| self.cache.free(slot));
        true
    }

    /// Requests that wait or are being answered.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing waits or is being answered.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Length of the prompt of a request that waits or is being answered, in tokens; pictures count with all of theirs.
    pub fn prompt_len(&self, request: RequestId) -> Option<usize> {
        self.rows.iter().find(|row| row.id == request).map(|row| row.prompt_len)
    }

    /// One more token for every request whose prompt is read to its end, and some more of the others' prompts: a piece, and
    /// where nothing else is to do as many as it takes for somebody's first token.
    pub fn step(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let answering = self.places(|row| matches!(row.stage, Stage::Answering { .. }));
        let mut scored = self.read_prompts(&mut events);
        while answering.is_empty() && scored.is_empty() && self.rows.iter().any(|row| !row.done) {
            scored = self.read_prompts(&mut events);
        }
        for places in answering.chunks(self.pieces.alike.few) {
            let last: Vec<i64> = places.iter().filter_map(|&p| self.rows[p].answer.last().copied()).collect();
            let inputs_embeds = self.model.llm.embed(&last).unsqueeze();
            let states = self.read(places, &vec![1; places.len()], inputs_embeds);
            scored.extend(self.score(places, states));
        }
        for (places, scores) in scored {
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
            row.slot().into_iter().for_each(|slot| self.cache.free(slot));
        }
        events
    }

    /// Reads the next piece of the prompts that wait; the scores behind those that are read to their ends.
    fn read_prompts(&mut self, events: &mut Vec<Event>) -> Vec<Scored> {
        let waiting = self.places(|row| !row.done && !row.unread().is_empty());
        let unread: Vec<_> = waiting.iter().map(|&place| self.rows[place].unread()).collect();
        let mut pass = self.pieces.next(&unread);
        pass.iter_mut().for_each(|(place, _)| *place = waiting[*place]);
        self.begin(&pass, events);
        let (mut places, mut lengths, mut inputs) = (Vec::new(), Vec::new(), Vec::new());
        for (place, len) in pass {
            if let Stage::Reading { inputs_embeds, read, .. } = &self.rows[place].stage {
                places.push(place);
                lengths.push(len);
                inputs.push(inputs_embeds.clone().narrow(1, *read, len));
            }
        }
        if places.is_empty() {
            return Vec::new();
        }
        let states = self.read(&places, &lengths, Tensor::cat(inputs, 1));
        let (mut ready, mut ends) = (Vec::new(), Vec::new());
        for (number, (&place, len)) in (0..).zip(places.iter().zip(lengths)) {
            if self.rows[place].note_read(len) {
                ready.push(place);
                ends.push(number);
            }
        }
        self.score(&ready, pick(states, ends))
    }

    /// Computes the inputs of prompts that are read for the first time, and gives them slots.
    fn begin(&mut self, pass: &[(usize, usize)], events: &mut Vec<Event>) {
        let (mut places, mut prompts) = (Vec::new(), Vec::new());
        for &(place, _) in pass {
            if let Stage::Waiting(prompt) = &self.rows[place].stage {
                places.push(place);
                prompts.push(&**prompt);
            }
        }
        let inputs = embed(self.model, &prompts);
        for (place, inputs_embeds) in places.into_iter().zip(inputs) {
            let row = &mut self.rows[place];
            match inputs_embeds {
                Ok(inputs_embeds) => {
                    let slot = self.cache.take(row.prompt_len, row.budget);
                    row.stage = Stage::Reading { slot, inputs_embeds, read: 0 };
                }
                Err(error) => row.fail(error, events),
            }
        }
    }

    /// Puts new tokens of some rows through the decoder; the states behind each row's last one, `[places, hidden]`.
    ///
    /// # Shapes
    /// - inputs_embeds: `[1, sum of lengths, hidden]`
    fn read(&mut self, places: &[usize], lengths: &[usize], inputs_embeds: Tensor<3>) -> Tensor<2> {
        let slots = places.iter().filter_map(|&place| self.rows[place].slot());
        let new: Vec<(usize, usize)> = slots.zip(lengths.iter().copied()).collect();
        let states = self.model.llm.forward(inputs_embeds, self.cache.texts(&new)).squeeze_dim(0);
        let ends = lengths.iter().scan(0, |end, &len| {
            *end += len;
            Some(*end as i64 - 1)
        });
        pick(states, ends.collect())
    }

    /// Scores of the tokens that follow `states`, `[places, hidden]`.
    fn score(&self, places: &[usize], states: Tensor<2>) -> Vec<Scored> {
        let chunks = places.chunks(self.pieces.alike.few);
        let starts = (0..).step_by(self.pieces.alike.few.min(places.len().max(1)));
        let scored = chunks.zip(starts).map(|(places, start)| {
            (places.to_vec(), self.model.llm.logits(states.clone().narrow(0, start, places.len())))
        });
        scored.collect()
    }

    fn places(&self, which: impl Fn(&Row<'_>) -> bool) -> Vec<usize> {
        self.rows.iter().enumerate().filter(|(_, row)| which(row)).map(|(place, _)| place).collect()
    }
}

/// Rows of a matrix.
fn pick(states: Tensor<2>, rows: Vec<i64>) -> Tensor<2> {
    if rows.len() == states.dims()[0] {
        return states;
    }
    let count = rows.len();
    let rows = Tensor::from_data(TensorData::new(rows, [count]), &states.device());
    states.select(0, rows)
}
