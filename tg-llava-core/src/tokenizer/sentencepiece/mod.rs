//! SentencePiece models (`tokenizer.model`, `spiece.model`).

mod build;
mod proto;

pub(super) use build::{frame, llama, siglip};
