//! The decoder: Llama family and Qwen2 in one.

mod attention;
mod block;
mod decoder;
mod vocab;
mod walk;

pub use attention::DecoderAttention;
pub use block::DecoderLayer;
pub use decoder::{DecoderContext, Llm, TokenBatch};
