//! Answers: token by token, as text that can be shown while it grows.

mod answer;
mod decoding;
mod options;
mod sampler;
mod stop;
mod text;

pub use answer::{Answer, FinishReason};
pub use decoding::Decoding;
pub use options::{GenerateOptions, Sampling};
pub use sampler::Sampler;
pub use stop::StopFilter;
pub use text::Detokenizer;
