//! Quantised weights: what the bytes of the formats mean, over plain slices.
//!
//! [`ggml`] has the block formats of llama.cpp, as GGUF files hold them, [`bnb`] those of bitsandbytes.

pub mod bnb;
pub mod ggml;
