//! Answers: token by token, as text that can be shown while it grows.

mod answer;
mod engine;
#[cfg(test)]
mod engine_tests;
mod options;
mod pictures;
mod prefill;
mod request;
mod row;
mod sampler;
mod stop;
mod text;
mod text_stream;

pub use answer::Answer;
pub use engine::{Engine, EngineOptions, Event, FinishReason, RequestId};
pub use options::{GenerateOptions, Sampling};
pub use request::Request;
pub use sampler::Sampler;
pub use stop::StopFilter;
pub use text::Detokenizer;

use request::Prompt;
