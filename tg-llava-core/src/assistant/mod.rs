//! A checkpoint folder as something one can talk to: tokenizers, picture processing, template and model.

mod chat;
mod codecs;
mod load;

pub use chat::{Chat, EncodedImage, open_prompt};
pub use codecs::Codecs;
pub use load::{Assistant, AssistantOptions};
