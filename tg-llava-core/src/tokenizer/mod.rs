//! Text to ids and back: the language model's tokenizer and the one of the guide's text tower.

mod byte_level;
mod config;
mod error;
mod guarded;
mod guide;
mod image_token;
mod sentencepiece;
mod text;

pub use config::SpecialIds;
pub use error::TokenizerError;
pub use guide::{GuideCut, GuideKind, GuideTokenizer};
pub use image_token::{IMAGE_TAG, Tokenized};
pub use text::TextTokenizer;
