use super::Logprobs;
use crate::error::Error;

/// Names a request while an [`Engine`](super::Engine) answers it; never used twice by one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

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

/// What a step of an [`Engine`](super::Engine) brought. `answer` counts the answers to a request from 0 (see
/// [`GenerateOptions::num_answers`](super::GenerateOptions::num_answers)).
#[derive(Debug)]
pub enum Event {
    /// An answer's next token.
    Token {
        /// The request.
        request: RequestId,
        /// Which of its answers.
        answer: usize,
        /// The token.
        token: i64,
        /// The model's scores of the whole vocabulary that it was chosen by; none after a beam search.
        scores: Vec<f32>,
        /// Log-probabilities, where the request asks for them.
        logprobs: Option<Logprobs>,
        /// The text that became certain: whole characters, maybe none.
        text: String,
    },
    /// An answer is complete. The engine has forgotten a request whose answers all are.
    Finished {
        /// The request.
        request: RequestId,
        /// Which of its answers.
        answer: usize,
        /// Why.
        reason: FinishReason,
        /// The text that was held back until now.
        text: String,
    },
    /// A request ended with an error; the engine has forgotten it, with all its answers. The others go on.
    Failed {
        /// The request.
        request: RequestId,
        /// What went wrong.
        error: Error,
    },
}
