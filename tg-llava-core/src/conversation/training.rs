//! Turns of the data as the text that a model is trained on.

use super::labels::LabelNote;
use super::{Conversation, ConversationError, Prompt, Role, SeparatorStyle, Speaker, Template, Turn};
use crate::tokenizer::IMAGE_TAG;

/// A training text, its answers, and what is worth telling about it.
#[derive(Debug)]
pub(super) struct TrainingText {
    pub prompt: Prompt,
    pub notes: Vec<LabelNote>,
}

/// Lays `turns` out for every style but [`SeparatorStyle::Single`], which trains on a text of its own.
pub(super) fn lay_out(template: &Template, turns: &[Turn]) -> Result<TrainingText, ConversationError> {
    if template.style == SeparatorStyle::Plain {
        return caption(template, turns);
    }
    let mut notes = Vec::new();
    let dropped = usize::from(turns.first().ok_or(ConversationError::Empty)?.from == Speaker::Gpt);
    if dropped > 0 {
        notes.push(LabelNote::LeadingAnswerDropped);
    }
    let mut conversation = Conversation::bare(template);
    for (i, turn) in turns.iter().enumerate().skip(dropped) {
        let expected = if (i - dropped).is_multiple_of(2) { Speaker::Human } else { Speaker::Gpt };
        if turn.from != expected {
            return Err(ConversationError::SameSpeaker { turn: i, speaker: turn.from });
        }
        if turn.from == Speaker::Gpt && turn.value.is_empty() {
            notes.push(LabelNote::EmptyAnswer { turn: i });
        }
        conversation.push(turn.from.role(), turn.value.clone());
    }
    match conversation.messages.last() {
        None => return Err(ConversationError::NoHumanTurn),
        Some(last) if last.role == Role::User => notes.push(LabelNote::OpenEnded),
        Some(_) => {}
    }
    Ok(TrainingText { prompt: conversation.prompt()?, notes })
}

/// A picture and its caption: what the human says is replaced by the picture alone.
fn caption(template: &Template, turns: &[Turn]) -> Result<TrainingText, ConversationError> {
    let tagged = turns.first().is_some_and(|t| t.from == Speaker::Human && t.value.contains(IMAGE_TAG));
    let [_, Turn { from: Speaker::Gpt, value }] = turns else {
        return Err(ConversationError::NotACaption { turns: turns.len(), tagged });
    };
    if !tagged {
        return Err(ConversationError::NotACaption { turns: turns.len(), tagged });
    }
    let text = format!("{IMAGE_TAG}{value}{}", template.sep);
    let answer = IMAGE_TAG.len()..text.len();
    let notes = if value.is_empty() { vec![LabelNote::EmptyAnswer { turn: 1 }] } else { Vec::new() };
    Ok(TrainingText { prompt: Prompt { text, answers: vec![answer] }, notes })
}
