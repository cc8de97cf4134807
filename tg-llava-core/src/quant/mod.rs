//! Quantised weights: matrices whose values are stored as small integers with scales.
//!
//! [`ggml`] has the block formats of llama.cpp, as GGUF files hold them.

pub mod ggml;
