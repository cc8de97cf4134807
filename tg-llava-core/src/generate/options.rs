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
}

impl Default for GenerateOptions {
    /// Greedy, at most 512 tokens.
    fn default() -> Self {
        Self {
            max_new_tokens: 512,
            sampling: Sampling::Greedy,
            repetition_penalty: 1.0,
            eos_token_ids: Vec::new(),
            stop_strings: Vec::new(),
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

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Request`] with the option that is out of range.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Request(what));
        if self.max_new_tokens == 0 {
            return wrong("max_new_tokens = 0; it must be at least 1".into());
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong(format!(
                "repetition_penalty = {}; it must be a positive number (1 = off)",
                self.repetition_penalty
            ));
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
