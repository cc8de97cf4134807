//! Weights in fewer bits than a float: the arithmetic of the formats, over plain slices.
//!
//! [`bnb`] has those of bitsandbytes, [`ggml`] the block formats of llama.cpp, as GGUF files hold them.

pub mod bnb;
pub mod ggml;
