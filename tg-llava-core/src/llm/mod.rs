//! The decoder: Llama family and Qwen2 in one.

mod adapter;
mod attention;
mod block;
#[cfg(test)]
mod cache_tests;
mod decoder;
mod matrices;
mod splice;
mod vocab;
mod walk;

pub use attention::DecoderAttention;
pub use block::DecoderLayer;
pub use decoder::{DecoderContext, Llm, TokenBatch};
pub use splice::splice;
