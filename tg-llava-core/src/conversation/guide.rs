//! The text that guides how a picture is looked at.

use super::turn::strip;
use super::{ConversationError, Speaker, Turn};
use crate::tokenizer::IMAGE_TAG;

/// Which questions of a conversation guide the picture's features.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuideTurn {
    /// The last one, as the reference trains.
    #[default]
    Last,
    /// The first one.
    First,
    /// All of them, a line each.
    Joined,
}

/// The guide text of a conversation: its human turn or turns, without `<image>`, stripped of white space.
///
/// # Errors
/// [`ConversationError::NoHumanTurn`] where nobody asks anything.
pub fn guide_text(turns: &[Turn], which: GuideTurn) -> Result<String, ConversationError> {
    let mut questions = turns
        .iter()
        .filter(|turn| turn.from == Speaker::Human)
        .map(|turn| strip(&turn.value.replace(IMAGE_TAG, "")).to_owned());
    let guide = match which {
        GuideTurn::Last => questions.next_back(),
        GuideTurn::First => questions.next(),
        GuideTurn::Joined => questions.reduce(|all, next| all + "\n" + &next),
    };
    guide.ok_or(ConversationError::NoHumanTurn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_questions_guide() {
        let turns =
            [Turn::human("<image>\nOne?"), Turn::gpt("1"), Turn::human(" Two? <image>"), Turn::gpt("2")];
        let guide = |which| guide_text(&turns, which).unwrap();
        assert_eq!(guide(GuideTurn::default()), "Two?");
        assert_eq!(guide(GuideTurn::First), "One?");
        assert_eq!(guide(GuideTurn::Joined), "One?\nTwo?");
    }

    #[test]
    fn without_a_question_there_is_no_guide() {
        let error = guide_text(&[Turn::gpt("Hello")], GuideTurn::Last).unwrap_err();
        assert!(matches!(error, ConversationError::NoHumanTurn));
    }
}
