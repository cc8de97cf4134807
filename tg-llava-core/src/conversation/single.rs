//! The `###` templates (v0), which are trained on a text of their own:
//! the system text and a blank line, then `### Human: ...` and `### Assistant: ...`, a line each, then `### `.

use std::ops::Range;

use super::labels::{Cutter, LabelNote};
use super::training::TrainingText;
use super::{ConversationError, Prompt, Speaker, Template, Turn};
use crate::nn::IGNORE_INDEX;

/// Begins every turn.
const SIGNAL: &str = "### ";

/// Ids of a human turn that the reference leaves supervised: meant to be the mark that ends an answer.
const SUPERVISED_OF_HUMAN: usize = 2;

/// The training text, and the place of each turn in it; the header stands before the first.
pub(super) struct SingleText {
    pub training: TrainingText,
    turns: Vec<Range<usize>>,
}

/// Lays `turns` out. Any order of speakers will do.
pub(super) fn lay_out(template: &Template, turns: &[Turn]) -> Result<SingleText, ConversationError> {
    if turns.is_empty() {
        return Err(ConversationError::Empty);
    }
    let mut text = format!("{}\n\n", template.system);
    let (mut places, mut answers, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for (i, turn) in turns.iter().enumerate() {
        let start = text.len();
        text += &format!("{SIGNAL}{}:", template.role(turn.from.role()));
        let said = text.len();
        text += &format!(" {}\n", turn.value);
        places.push(start..text.len());
        if turn.from == Speaker::Gpt {
            answers.push(said..text.len() + SIGNAL.trim_end().len());
            if turn.value.is_empty() {
                notes.push(LabelNote::EmptyAnswer { turn: i });
            }
        }
    }
    text += SIGNAL;
    if turns.last().is_some_and(|turn| turn.from == Speaker::Human) {
        notes.push(LabelNote::OpenEnded);
    }
    Ok(SingleText { training: TrainingText { prompt: Prompt { text, answers }, notes }, turns: places })
}

/// The reference's labels: each piece is tokenized alone and its ids are counted off.
pub(super) fn counted_labels(
    cutter: &Cutter,
    text: &SingleText,
    turns: &[Turn],
    ids: &[i64],
) -> Result<Vec<i64>, ConversationError> {
    let whole = &text.training.prompt.text;
    let count = |piece: &str| -> Result<usize, ConversationError> { Ok(cutter.tokens(piece)?.kept.len()) };
    let mut labels = ids.to_vec();
    let mut at = count(&whole[..text.turns[0].start])?;
    let mut ignore = |from: usize, to: usize| {
        let to = to.min(ids.len());
        labels[from.min(to)..to].fill(IGNORE_INDEX);
    };
    ignore(0, at);
    for (turn, place) in turns.iter().zip(&text.turns) {
        let length = count(&whole[place.clone()])?;
        if turn.from == Speaker::Human {
            ignore(at + SUPERVISED_OF_HUMAN, at + length);
        }
        at += length;
    }
    Ok(labels)
}
