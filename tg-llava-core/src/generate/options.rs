use super::BeamOptions;
use crate::config::LlmConfig;
use crate::conversation::Template;
use crate::error::{Error, Result};
use crate::tokenizer::TextTokenizer;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The most probable one.
    Greedy,
    /// By chance, after temperature, top-k and top-p in this order.
    Random {
        /// Division of the scores; lower is closer to greedy.
        temperature: f64,
        /// Candidates kept; 0 keeps all.
        top_k: usize,
        /// Probability mass kept, in (0, 1].
        top_p: f64,
        /// Start of the random numbers: equal seeds give equal answers.
        seed: u64,
    },
}

/// Texts that one request may follow at once; each takes memory of its own.
const MOST_ROWS: usize = 1024;

/// How an answer is generated.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Scores of tokens of the answer so far are divided (multiplied where negative) by this; 1 = off.
    pub repetition_penalty: f64,
    /// Tokens that end the answer.
    pub eos_token_ids: Vec<i64>,
    /// Texts that end the answer; they are not part of it.
    pub stop_strings: Vec<String>,
    /// Answers to the one prompt; the first is that of a request for one.
    pub num_answers: usize,
    /// A search for the most probable answer as a whole, instead of the most probable token each time. Its tokens come
    /// all at once, at the end.
    pub beams: Option<BeamOptions>,
    /// Whether each token comes with its log-probability, and with those of so many most likely tokens.
    pub top_logprobs: Option<usize>,
}

impl Default for GenerateOptions {
    /// One greedy answer of at most 512 tokens.
    fn default() -> Self {
        Self {
            max_new_tokens: 512,
            sampling: Sampling::Greedy,
            repetition_penalty: 1.0,
            eos_token_ids: Vec::new(),
            stop_strings: Vec::new(),
            num_answers: 1,
            beams: None,
            top_logprobs: None,
        }
    }
}

impl GenerateOptions {
    /// The defaults with all that ends a turn of a conversation: the checkpoint's end tokens, those of the template
    /// and the tokenizer, and the template's end mark as text.
    pub fn for_turns(template: &Template, tokenizer: &TextTokenizer, llm: &LlmConfig) -> Self {
        let mut eos_token_ids = [&llm.eos_token_ids[..], &llm.generation_eos_token_ids].concat();
        eos_token_ids.extend(template.end_ids(tokenizer).into_iter().map(i64::from));
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        let stop_strings = vec![template.end_mark().to_owned()];
        Self { eos_token_ids, stop_strings, ..Self::default() }
    }

    /// Texts that a request follows at once: its answers, or its beams.
    pub(super) fn num_rows(&self) -> usize {
        self.beams.map_or(self.num_answers, |beams| beams.num_beams)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Request`] with the option that is out of range.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Request(what));
        if self.max_new_tokens == 0 {
            return wrong("max_new_tokens = 0; it must be at least 1".into());
        }
        for (name, count) in [("num_answers", self.num_answers), ("num_beams", self.num_rows())] {
            if !(1..=MOST_ROWS).contains(&count) {
                return wrong(format!("{name} = {count}; it must be from 1 to {MOST_ROWS}"));
            }
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong(format!(
                "repetition_penalty = {}; it must be a positive number (1 = off)",
                self.repetition_penalty
            ));
        }
        if let Some(BeamOptions { num_beams, length_penalty, .. }) = self.beams {
            if num_beams < self.num_answers {
                let count = self.num_answers;
                return wrong(format!("num_beams = {num_beams}; it must be at least num_answers = {count}"));
            }
            if !length_penalty.is_finite() {
                return wrong(format!("length_penalty = {length_penalty}; it must be a number (1 is usual)"));
            }
            if self.sampling != Sampling::Greedy || self.top_logprobs.is_some() {
                return wrong("a beam search takes neither sampling nor log-probabilities".into());
            }
        }
        if let Sampling::Random { temperature, top_p, .. } = self.sampling {
            if !(temperature > 0.0 && temperature.is_finite()) {
                return wrong(format!(
                    "temperature = {temperature}; it must be a positive number (0 is greedy)"
                ));
            }
            if !(top_p > 0.0 && top_p <= 1.0) {
                return wrong(format!("top_p = {top_p}; it must be in (0, 1]"));
            }
        }
        Ok(())
    }
}
