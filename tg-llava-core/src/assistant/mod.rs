//! A checkpoint folder as something one can talk to: tokenizers, picture processing, template and model.

mod adapter;
mod chat;
mod codecs;
mod load;
mod prompt;

pub use crate::model::EncodedImage;
pub use chat::Chat;
pub use codecs::Codecs;
pub use load::{Assistant, AssistantOptions};
pub use prompt::{PromptWriter, without_pictures};
