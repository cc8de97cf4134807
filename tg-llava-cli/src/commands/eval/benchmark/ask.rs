//! Puts a benchmark's questions to the engine.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tg_llava_core::assistant::Assistant;
use tg_llava_core::generate::{
    BeamOptions, Engine, EngineOptions, Event, GenerateOptions, Request, RequestId, Sampling,
};
use tg_llava_core::preprocess::{PreparedImage, decode_bytes};
use tg_llava_core::tokenizer::GuideCut;
use tg_llava_train::data::SampleEncoder;

use crate::benchmark::questions::{Picture, Questions};
use crate::failure::{Failure, chain};
use crate::interrupt::Busy;

/// Vision features that are kept: benchmarks ask about one picture several times in a row.
const VISION_BYTES: u64 = 256 << 20;

/// How many questions may be answered ahead of one that takes long, in batches. They are reported in order.
const AHEAD: usize = 8;

/// Templates whose models VLMEvalKit's wrapper asks in its own words.
const WRAPPED: [&str; 3] = ["v1", "vicuna_v1", "llava_v1"];

/// What becomes of a question: its answer, or why there is none.
pub type Answer = Result<String, String>;

/// Asks a model.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The model.
    pub assistant: &'a Assistant,
    /// How it takes pictures.
    pub encoder: &'a SampleEncoder,
    /// What is asked.
    pub questions: &'a Questions,
    /// How.
    pub limits: Limits,
    /// Hears Ctrl-C.
    pub busy: &'a Busy<'a>,
}

/// How questions are answered.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// A search for the most probable answers, instead of the most probable next token.
    pub beams: Option<BeamOptions>,
    /// Questions at once.
    pub batch: usize,
    /// Memory for keys and values, in MiB.
    pub cache_mib: Option<u64>,
}

impl Asking<'_> {
    /// Answers `rows`, and tells the answers in their order until `tell` fails.
    ///
    /// # Errors
    /// What `tell` fails with, and [`Failure::Interrupted`] after Ctrl-C.
    pub fn all(
        &self,
        rows: &[usize],
        tell: &mut dyn FnMut(usize, Answer) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Limits { batch, cache_mib, .. } = self.limits;
        let batch = batch.max(1);
        let mut engine = Engine::with_options(
            &self.assistant.model,
            Some(&self.assistant.tokenizer),
            EngineOptions {
                // Nobody waits for a single token.
                prefill_tokens: 4096,
                cache_bytes: cache_mib.map(|mib| mib.saturating_mul(1 << 20)),
                vision_bytes: VISION_BYTES,
                guided_bytes: 0,
            },
        );
        let mut waiting: VecDeque<(usize, usize)> = rows.iter().copied().enumerate().collect();
        let mut asked: BTreeMap<RequestId, (usize, String)> = BTreeMap::new();
        let mut ready: BTreeMap<usize, Answer> = BTreeMap::new();
        let mut told = 0;
        while told < rows.len() {
            while engine.len() < batch
                && let Some(&(place, row)) = waiting.front()
                && place < told + AHEAD * batch
            {
                waiting.pop_front();
                match self.request(row, &mut engine).and_then(|request| Ok(engine.admit(request)?)) {
                    Ok(request) => drop(asked.insert(request, (place, String::new()))),
                    Err(error) => drop(ready.insert(place, Err(chain(&error)))),
                }
            }
            for event in engine.step() {
                match event {
                    Event::Token { request, text, .. } => {
                        if let Some((_, answer)) = asked.get_mut(&request) {
                            *answer += &text;
                        }
                    }
                    Event::Finished { request, text, .. } => {
                        if let Some((place, answer)) = asked.remove(&request) {
                            ready.insert(place, Ok((answer + &text).trim().to_owned()));
                        }
                    }
                    Event::Failed { request, error } => {
                        if let Some((place, _)) = asked.remove(&request) {
                            ready.insert(place, Err(error.to_string()));
                        }
                    }
                }
            }
            while let Some(answer) = ready.remove(&told) {
                tell(rows[told], answer)?;
                told += 1;
            }
            if self.busy.interrupted() {
                return Err(Failure::Interrupted);
            }
        }
        Ok(())
    }

    fn request(&self, row: usize, engine: &mut Engine<'_>) -> Result<Request> {
        let assistant = self.assistant;
        let asked = self.questions.asked(row)?;
        let images = asked.pictures.iter().map(|picture| Ok(engine.encode(self.prepare(picture)?)?));
        let images = images.collect::<Result<Vec<_>>>()?;
        let options = GenerateOptions {
            max_new_tokens: self.limits.max_new_tokens,
            sampling: Sampling::Greedy,
            beams: self.limits.beams,
            repetition_penalty: 1.0,
            ..assistant.generate_options()
        };
        if !self.is_wrapped() {
            return Ok(assistant.prompt_writer().request(&[asked.turn()], images, options)?);
        }
        let input_ids = assistant.tokenizer.encode_with_images(&asked.wrapped)?.ids;
        let mut request = Request { images, ..Request::text(input_ids, options) };
        if let Some(guide) = assistant.guide_tokenizer.as_ref().filter(|_| !request.images.is_empty()) {
            request.guide_ids = guide.encode(&asked.guide, GuideCut::KeepEnd)?;
            request.guide_pad = guide.pad_id();
        }
        Ok(request)
    }

    /// Whether prompts are VLMEvalKit's own, and not written by the model's template.
    fn is_wrapped(&self) -> bool {
        matches!(self.questions, Questions::Kit { .. }) && WRAPPED.contains(&self.assistant.template.name)
    }

    fn prepare(&self, picture: &Picture) -> Result<PreparedImage> {
        match picture {
            Picture::File(name) => Ok(self.encoder.picture(name)?),
            Picture::Base64(text) => {
                let text: String = text.split_ascii_whitespace().collect();
                let bytes = STANDARD.decode(text).context("column `image` is no base64")?;
                let options = &self.encoder.options;
                let decoded = decode_bytes(&bytes, "the picture in column `image`", &options.decode)?;
                Ok(self.encoder.images.prepare(&decoded, options.aspect, options.detail))
            }
        }
    }
}
