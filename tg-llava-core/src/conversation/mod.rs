//! Conversations as text: templates, prompts, the guide text, and ids with labels for training.

mod catalog;
mod error;
mod guide;
mod labels;
mod prompt;
mod single;
mod template;
mod training;
mod turn;

pub use error::ConversationError;
pub use guide::{GuideTurn, guide_text};
pub use labels::{LabelNote, LabelOptions, LabeledSample, SingleLabels, label_conversation};
pub use prompt::{Conversation, Message, Prompt};
pub use template::{Role, SeparatorStyle, Template};
pub use turn::{ImageMarks, Speaker, Turn, place_image_tags};
