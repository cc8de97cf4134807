//! What can be wrong with a conversation.

use super::{Speaker, Template};
use crate::tokenizer::TokenizerError;

/// Why a conversation cannot become a prompt, a guide or a training sample.
///
/// Turns are numbered from 0, as they stand in the data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConversationError {
    /// No template has this name.
    #[error("no conversation template {name:?}; there are: {}", Template::names().join(", "))]
    UnknownTemplate {
        /// The name asked for.
        name: String,
    },
    /// A turn's `from` is neither the user nor the model.
    #[error("unknown speaker {0:?}; a turn is from \"human\" or \"gpt\"")]
    UnknownSpeaker(String),
    /// There is no turn at all.
    #[error("the conversation is empty")]
    Empty,
    /// Nobody asks anything.
    #[error("the conversation has no human turn")]
    NoHumanTurn,
    /// Two turns in a row have the same speaker, which this template cannot write.
    #[error("turn {turn} is from {:?} again; turns must alternate", .speaker.name())]
    SameSpeaker {
        /// The second of the two.
        turn: usize,
        /// Who speaks twice.
        speaker: Speaker,
    },
    /// The template `plain` writes one picture and its caption.
    #[error(
        "the template \"plain\" takes exactly one human turn with <image> and one gpt turn, found {turns} turns{}",
        if *.tagged { "" } else { ", none of them the human's with <image>" }
    )]
    NotACaption {
        /// Number of turns.
        turns: usize,
        /// Whether the first turn is the human's and holds `<image>`.
        tagged: bool,
    },
    /// The template needs a first message from the user with text in it.
    #[error("the template {0:?} must begin with a user message that has text")]
    NoOpening(String),
    /// The text cannot be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
