use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor, TensorData};

use super::beams::BeamSearch;
use super::byte_cache::ByteCache;
use super::job::{Job, Stage};
use super::pictures::{GuidedCache, embed};
use super::prefill::Pieces;
use super::row::{Row, check};
use super::text_stream::TextStream;
use super::{CacheCounts, Event, Request, RequestId};
use crate::error::{Error, Result};
use crate::model::{EncodedImage, TgLlava};
use crate::nn::{KvCache, among_workers, cast_to};
use crate::preprocess::{PictureId, PreparedImage};
use crate::tokenizer::TextTokenizer;

/// How an [`Engine`] shares time and memory between requests. Answers do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// About how many tokens of prompts a step reads at most while answers are under way: short prompts are read
    /// together, and long ones in pieces, so that nobody's next token waits for a whole one.
    pub prefill_tokens: usize,
    /// Most bytes of keys and values, each request's with room for its longest answers: where there is no room, requests wait
    /// in the order in which they came. `None` for no limit.
    pub cache_bytes: Option<u64>,
    /// Most bytes of vision features that are kept for pictures which come again (see [`Engine::encode`]).
    pub vision_bytes: u64,
    /// Most bytes of guided tokens that are kept for pictures which come again with the same guide.
    pub guided_bytes: u64,
}

/// How often pictures were known already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PictureCounts {
    /// Vision features by what a picture shows.
    pub vision: CacheCounts,
    /// Guided tokens by what a prompt's pictures show and what guides them.
    pub guided: CacheCounts,
}

impl Default for EngineOptions {
    /// Enough tokens that the decoder's matrices are not what they wait for, as much memory as answers take, and none for what
    /// may come again.
    fn default() -> Self {
        Self { prefill_tokens: 512, cache_bytes: None, vision_bytes: 0, guided_bytes: 0 }
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
    jobs: Vec<Job<'m>>,
    admitted: u64,
    pieces: Pieces,
    cache_bytes: u64,
    seen: ByteCache<PictureId, EncodedImage>,
    guided: GuidedCache,
}

/// Jobs by their places in the engine, and the scores of a row's next token of each, `[jobs, vocab_size]`. A job has several
/// rows in the order of its answers.
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
        Self {
            model,
            tokenizer,
            cache: model.llm.new_cache(),
            jobs: Vec::new(),
            admitted: 0,
            pieces: Pieces { tokens: options.prefill_tokens, alike: model.llm.rows_alike() },
            cache_bytes: options.cache_bytes.unwrap_or(u64::MAX),
            seen: ByteCache::new(options.vision_bytes),
            guided: ByteCache::new(options.guided_bytes),
        }
    }

    /// Runs a picture through the vision tower, unless it was seen before.
    ///
    /// # Errors
    /// As [`TgLlava::encode`].
    pub fn encode(&mut self, picture: PreparedImage) -> Result<EncodedImage> {
        let id = picture.id();
        if let Some(known) = self.seen.get(&id) {
            return Ok(known);
        }
        let encoded = self.model.encode(picture)?;
        let parts = [Some(&encoded.features.images), encoded.features.crops.as_ref()].into_iter().flatten();
        let bytes: usize = parts.map(|part| part.shape().num_elements() * part.dtype().size()).sum();
        self.seen.put(id, encoded.clone(), bytes as u64);
        Ok(encoded)
    }

    /// How often pictures were known already.
    pub fn picture_counts(&self) -> PictureCounts {
        PictureCounts { vision: self.seen.counts(), guided: self.guided.counts() }
    }

    /// Takes a request, which [`Engine::step`] answers.
    ///
    /// # Errors
    /// [`Error::Request`] where an option is out of range, there are stop strings but no tokenizer, the prompt leaves
    /// no room in the context, or memory would never suffice; and where prompt, pictures and model do not fit together. The
    /// engine is as before then.
    pub fn admit(&mut self, request: Request) -> Result<RequestId> {
        let options = request.options.clone();
        if self.tokenizer.is_none() && !options.stop_strings.is_empty() {
            return Err(Error::Request("stop strings need a tokenizer".into()));
        }
        let prompt = request.check(self.model)?;
        let job = Job {
            id: RequestId(self.admitted),
            options,
            prompt_len: prompt.len(),
            budget: prompt.budget,
            stage: Stage::Waiting(Box::new(prompt)),
            failed: false,
        };
        let (bytes, most) = (self.bytes_of(&job), self.cache_bytes);
        if bytes > most {
            return Err(Error::Request(format!(
                "{} answer(s) of at most {} tokens to a prompt of {} take {bytes} bytes of keys and values, and the limit \
                 is {most}; ask for less, or raise the limit",
                job.options.num_answers, job.budget, job.prompt_len
            )));
        }
        let id = job.id;
        self.admitted += 1;
        self.jobs.push(job);
        Ok(id)
    }

    /// Ends a request before its answers are complete; whether it was still there.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let Some(place) = self.jobs.iter().position(|job| job.id == request) else { return false };
        self.jobs.remove(place).slots().into_iter().for_each(|slot| self.cache.free(slot));
        true
    }

    /// Requests that wait or are being answered.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nothing waits or is being answered.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Length of the prompt of a request that waits or is being answered, in tokens; pictures count with all of theirs.
    pub fn prompt_len(&self, request: RequestId) -> Option<usize> {
        self.jobs.iter().find(|job| job.id == request).map(|job| job.prompt_len)
    }

    /// One more token for every answer whose prompt is read to its end, and some more of the other prompts: a piece, and
    /// where nothing else is to do as many as it takes for somebody's first token.
    pub fn step(&mut self) -> Vec<Event> {
        let norm = self.model.llm.norm.gamma.val();
        among_workers(&norm, || self.next_tokens())
    }

    fn next_tokens(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let jobs = self.jobs.iter().enumerate();
        let texts: Vec<(usize, (usize, i64))> =
            jobs.flat_map(|(place, job)| job.texts().into_iter().map(move |text| (place, text))).collect();
        let mut scored = self.read_prompts(&mut events);
        while texts.is_empty() && scored.is_empty() && self.jobs.iter().any(|job| !job.is_done()) {
            scored = self.read_prompts(&mut events);
        }
        for texts in texts.chunks(self.pieces.alike.few) {
            let last: Vec<i64> = texts.iter().map(|&(_, (_, token))| token).collect();
            let new: Vec<(usize, usize)> = texts.iter().map(|&(_, (slot, _))| (slot, 1)).collect();
            let states = self.read(&new, self.model.llm.embed(&last).unsqueeze());
            let jobs: Vec<usize> = texts.iter().map(|&(job, _)| job).collect();
            scored.extend(self.score(&jobs, states));
        }
        self.advance(scored, &mut events);
        for job in self.jobs.extract_if(.., |job| job.is_done()) {
            job.slots().into_iter().for_each(|slot| self.cache.free(slot));
        }
        events
    }

    /// Brings answers on by the scores of their next tokens, and forgets those that are complete.
    fn advance(&mut self, scored: Vec<Scored>, events: &mut Vec<Event>) {
        let mut of_jobs: BTreeMap<usize, Result<Vec<Vec<f32>>, String>> = BTreeMap::new();
        for (jobs, scores) in scored {
            let vocab = scores.dims()[1];
            match cast_to(scores, DType::F32).try_into_vec_as::<f32>() {
                Ok(scores) => {
                    for (job, scores) in jobs.into_iter().zip(scores.chunks_exact(vocab)) {
                        if let Ok(all) = of_jobs.entry(job).or_insert(Ok(Vec::new())) {
                            all.push(scores.to_vec());
                        }
                    }
                }
                Err(error) => {
                    let message = format!("the device could not compute the next token: {error}");
                    of_jobs.extend(jobs.into_iter().map(|job| (job, Err(message.clone()))));
                }
            }
        }
        for (place, scores) in of_jobs {
            let job = &mut self.jobs[place];
            match scores {
                Ok(scores) if job.options.beams.is_some() => self.search(place, &scores, events),
                Ok(scores) => job.advance(scores, events),
                Err(message) => job.fail(Error::Request(message), events),
            }
            if let Stage::Answering(rows) = &mut self.jobs[place].stage {
                for row in rows.extract_if(.., |row| row.done) {
                    self.cache.free(row.slot);
                }
            }
        }
    }

    /// Brings a beam search on by the scores behind its beams, and tells the answers at its end.
    fn search(&mut self, place: usize, scores: &[Vec<f32>], events: &mut Vec<Event>) {
        let job = &mut self.jobs[place];
        let Stage::Searching { search, slots } = &mut job.stage else { return };
        if let Err(error) = scores.iter().try_for_each(|scores| check(scores, search.len() + 1)) {
            return job.fail(error, events);
        }
        match search.advance(scores) {
            Ok(Some(parents)) => {
                *slots = self.cache.follow(slots, &parents);
                return;
            }
            Ok(None) => {}
            Err(error) => return job.fail(error, events),
        }
        slots.iter().for_each(|&slot| self.cache.free(slot));
        let answers = search.take_complete();
        job.stage = Stage::Answering(Vec::new());
        for (answer, beam) in answers.into_iter().take(job.options.num_answers).enumerate() {
            let mut row = Row::new(job, answer, 0, self.tokenizer);
            for token in beam.tokens {
                if let Err(error) = row.push(token, (Vec::new(), None), &job.options, events) {
                    return job.fail(error, events);
                }
                if row.done {
                    break;
                }
            }
        }
    }

    /// Reads the next piece of the prompts that wait; the scores behind those that are read to their ends.
    fn read_prompts(&mut self, events: &mut Vec<Event>) -> Vec<Scored> {
        let waiting = self.with_memory();
        let unread: Vec<_> = waiting.iter().map(|&place| self.jobs[place].unread()).collect();
        let mut pass = self.pieces.next(&unread);
        pass.iter_mut().for_each(|(place, _)| *place = waiting[*place]);
        self.begin(&pass, events);
        let (mut new, mut inputs, mut ready, mut ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (place, len) in pass {
            if let Stage::Reading { slot, inputs_embeds, read } = &mut self.jobs[place].stage {
                new.push((*slot, len));
                inputs.push(inputs_embeds.clone().narrow(1, *read, len));
                *read += len;
                if self.jobs[place].unread().is_empty() {
                    ready.push(place);
                    ends.push(new.len() as i64 - 1);
                }
            }
        }
        if new.is_empty() {
            return Vec::new();
        }
        let states = self.read(&new, Tensor::cat(inputs, 1));
        ready.iter().for_each(|&place| self.begin_answers(place));
        self.score(&ready, pick(states, ends))
    }

    /// Jobs whose prompts are not read, in the order in which they came, as far as there is memory for them.
    fn with_memory(&self) -> Vec<usize> {
        let used =
            |job: &Job<'_>| if matches!(job.stage, Stage::Waiting(_)) { 0 } else { self.bytes_of(job) };
        let mut free = self.cache_bytes.saturating_sub(self.jobs.iter().map(used).sum());
        let mut places = Vec::new();
        for (place, job) in self.jobs.iter().enumerate().filter(|(_, job)| !job.unread().is_empty()) {
            if let Stage::Waiting(_) = job.stage {
                // Nobody is overtaken, or large requests might wait for ever.
                let Some(rest) = free.checked_sub(self.bytes_of(job)) else { break };
                free = rest;
            }
            places.push(place);
        }
        places
    }

    /// Bytes of a job's keys and values at its longest.
    fn bytes_of(&self, job: &Job<'_>) -> u64 {
        let rows = match &job.stage {
            Stage::Answering(rows) => rows.len(),
            _ => job.options.num_rows(),
        };
        self.cache.bytes_of(job.prompt_len + job.budget).saturating_mul(rows as u64)
    }

    /// Computes the inputs of prompts that are read for the first time, and gives them slots.
    fn begin(&mut self, pass: &[(usize, usize)], events: &mut Vec<Event>) {
        let (mut places, mut prompts) = (Vec::new(), Vec::new());
        for &(place, _) in pass {
            if let Stage::Waiting(prompt) = &self.jobs[place].stage {
                places.push(place);
                prompts.push(&**prompt);
            }
        }
        let inputs = embed(self.model, &prompts, &mut self.guided);
        for (place, inputs_embeds) in places.into_iter().zip(inputs) {
            let job = &mut self.jobs[place];
            match inputs_embeds {
                Ok(inputs_embeds) => {
                    let slot = self.cache.take(job.prompt_len, job.budget);
                    job.stage = Stage::Reading { slot, inputs_embeds, read: 0 };
                }
                Err(error) => job.fail(error, events),
            }
        }
    }

    /// Begins the answers to a prompt that was read.
    fn begin_answers(&mut self, place: usize) {
        let job = &mut self.jobs[place];
        let Stage::Reading { slot, .. } = job.stage else { return };
        job.stage = match job.options.beams {
            Some(_) => {
                let stops = &job.options.stop_strings;
                let tokenizer = self.tokenizer.filter(|_| !stops.is_empty());
                let text = tokenizer.map(|tokenizer| TextStream::new(tokenizer, stops));
                let search = BeamSearch::new(&job.options, job.budget, text);
                Stage::Searching { search, slots: vec![slot] }
            }
            None => {
                let slot_of = |answer| if answer == 0 { slot } else { self.cache.fork(slot) };
                let slots: Vec<usize> = (0..job.options.num_answers).map(slot_of).collect();
                let row = |(answer, slot)| Row::new(job, answer, slot, self.tokenizer);
                Stage::Answering(slots.into_iter().enumerate().map(row).collect())
            }
        };
    }

    /// Puts new tokens of some slots, so many each, through the decoder; the states behind each slot's last one, `[slots, hidden]`.
    ///
    /// # Shapes
    /// - inputs_embeds: `[1, number of all new tokens, hidden]`
    fn read(&mut self, new: &[(usize, usize)], inputs_embeds: Tensor<3>) -> Tensor<2> {
        let states = self.model.llm.forward(inputs_embeds, self.cache.texts(new)).squeeze_dim(0);
        let ends = new.iter().scan(0, |end, &(_, len)| {
            *end += len;
            Some(*end as i64 - 1)
        });
        pick(states, ends.collect())
    }

    /// Scores of the tokens that follow `states`, `[jobs, hidden]`.
    fn score(&self, jobs: &[usize], states: Tensor<2>) -> Vec<Scored> {
        let chunks = jobs.chunks(self.pieces.alike.few);
        let starts = (0..).step_by(self.pieces.alike.few.min(jobs.len().max(1)));
        let scored = chunks.zip(starts).map(|(jobs, start)| {
            (jobs.to_vec(), self.model.llm.logits(states.clone().narrow(0, start, jobs.len())))
        });
        scored.collect()
    }
}

/// Rows of a matrix, in their order.
fn pick(states: Tensor<2>, rows: Vec<i64>) -> Tensor<2> {
    if rows.len() == states.dims()[0] {
        return states;
    }
    let count = rows.len();
    let rows = Tensor::from_data(TensorData::new(rows, [count]), &states.device());
    states.select(0, rows)
}
