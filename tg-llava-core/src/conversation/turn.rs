//! Turns as LLaVA's data files hold them.

use serde::{Deserialize, Serialize};

use super::{ConversationError, Role, Template};
use crate::tokenizer::IMAGE_TAG;

/// Who says a turn (`from` in LLaVA's data).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Speaker {
    /// The one who asks: `human`.
    Human,
    /// The model: `gpt`.
    Gpt,
}

impl Speaker {
    /// The name in the data.
    pub fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Gpt => "gpt",
        }
    }

    /// The part it plays in a prompt.
    pub fn role(self) -> Role {
        match self {
            Self::Human => Role::User,
            Self::Gpt => Role::Assistant,
        }
    }
}

impl TryFrom<String> for Speaker {
    type Error = ConversationError;

    fn try_from(name: String) -> Result<Self, ConversationError> {
        match name.as_str() {
            "human" => Ok(Self::Human),
            "gpt" => Ok(Self::Gpt),
            _ => Err(ConversationError::UnknownSpeaker(name)),
        }
    }
}

impl From<Speaker> for &'static str {
    fn from(speaker: Speaker) -> Self {
        speaker.name()
    }
}

/// One turn of a conversation in LLaVA's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Who speaks.
    pub from: Speaker,
    /// What is said; `<image>` stands where a picture goes.
    pub value: String,
}

impl Turn {
    /// A turn of the one who asks.
    pub fn human(value: impl Into<String>) -> Self {
        Self { from: Speaker::Human, value: value.into() }
    }

    /// A turn of the model.
    pub fn gpt(value: impl Into<String>) -> Self {
        Self { from: Speaker::Gpt, value: value.into() }
    }
}

/// What is written around a picture's tag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ImageMarks {
    /// The tag alone.
    #[default]
    None,
    /// `<im_start><image><im_end>`: checkpoints with `mm_use_im_start_end`.
    StartEnd,
}

/// The turns of a sample with a picture, its tag moved to the front of the turn it stands in and wrapped as the
/// template and `marks` want it (LLaVA's `preprocess_multimodal`). Several tags of one turn stay where they
/// stand, since each is a picture of its own; the reference would keep one of them and lose the other pictures.
pub fn place_image_tags(turns: &[Turn], template: &Template, marks: ImageMarks) -> Vec<Turn> {
    let place = |turn: &Turn| {
        let mut value = turn.value.clone();
        let tags = value.matches(IMAGE_TAG).count();
        if tags == 1 {
            value = format!("{IMAGE_TAG}\n{}", strip(&value.replace(IMAGE_TAG, "")));
        }
        if tags > 0 {
            value = strip(&value).to_owned();
            if template.wraps_images() {
                value = value.replace(IMAGE_TAG, "<Image><image></Image>");
            }
            if marks == ImageMarks::StartEnd {
                value = value.replace(IMAGE_TAG, "<im_start><image><im_end>");
            }
        }
        Turn { from: turn.from, value }
    };
    turns.iter().map(place).collect()
}

/// Python's `str.strip`: Unicode white space, and the four ASCII separators.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_moves_to_the_front() {
        let turns = [Turn::human(" What? <image> \n"), Turn::gpt("<image>"), Turn::human("  no tag ")];
        let template = Template::for_version("v1");
        let placed = place_image_tags(&turns, template, ImageMarks::None);
        assert_eq!(placed[0].value, "<image>\nWhat?");
        assert_eq!(placed[1].value, "<image>");
        assert_eq!(placed[2].value, "  no tag ");
        let several = [Turn::human(" <image> or <image>? ")];
        assert_eq!(place_image_tags(&several, template, ImageMarks::None)[0].value, "<image> or <image>?");
        let marked = place_image_tags(&turns, template, ImageMarks::StartEnd);
        assert_eq!(marked[0].value, "<im_start><image><im_end>\nWhat?");
        let wrapped = place_image_tags(&turns, Template::for_version("v1_mmtag"), ImageMarks::None);
        assert_eq!(wrapped[0].value, "<Image><image></Image>\nWhat?");
    }

    #[test]
    fn an_unknown_speaker_is_named() {
        let error = serde_json::from_str::<Turn>(r#"{"from": "system", "value": ""}"#).unwrap_err();
        assert!(error.to_string().contains("\"system\""), "{error}");
    }
}
