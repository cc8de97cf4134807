//! A checkpoint folder as something one can talk to: tokenizers, picture processing, template and model.

mod chat;
mod load;

pub use chat::{Chat, EncodedImage};
pub use load::{Assistant, AssistantOptions};
