//! Answers: token by token, as text that can be shown while it grows.

mod answer;
mod beams;
mod byte_cache;
mod engine;
#[cfg(test)]
mod engine_tests;
mod event;
mod job;
mod logprobs;
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
pub use beams::{BeamOptions, EarlyStopping};
pub use byte_cache::CacheCounts;
pub use engine::{Engine, EngineOptions, PictureCounts};
pub use event::{Event, FinishReason, RequestId};
pub use logprobs::Logprobs;
pub use options::{GenerateOptions, Sampling};
pub use request::Request;
pub use sampler::Sampler;
pub use stop::StopFilter;
pub use text::Detokenizer;

use request::Prompt;
