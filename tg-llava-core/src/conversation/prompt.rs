//! Conversations and the prompts they make.

use std::ops::Range;

use super::{ConversationError, Role, SeparatorStyle, Template};
use crate::tokenizer::IMAGE_TAG;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said; an empty text is a message yet to come, of which only the role is written.
    pub text: String,
    /// Whether a picture comes with it. As the FIRST message it then gets its `<image>` tag put in front.
    pub picture: bool,
}

/// Messages in the layout of a template.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// The layout.
    pub template: Template,
    /// What has been said so far.
    pub messages: Vec<Message>,
}

/// A prompt, and where the assistant's answers lie in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The text that is tokenized.
    pub text: String,
    /// Byte ranges, in order, of what the assistant must produce: each answer from behind its role to the end
    /// of its end mark. Answers yet to come have none.
    pub answers: Vec<Range<usize>>,
}

impl Conversation {
    /// An empty conversation, with the messages that its template opens with.
    pub fn new(template: &Template) -> Self {
        let messages = template
            .opening
            .iter()
            .map(|&(role, text)| Message { role, text: text.into(), picture: false })
            .collect();
        Self { template: template.clone(), messages }
    }

    /// An empty conversation without opening messages, as training lays it out.
    pub fn bare(template: &Template) -> Self {
        Self { template: template.clone(), messages: Vec::new() }
    }

    /// Appends a message.
    pub fn push(&mut self, role: Role, text: impl Into<String>) {
        self.messages.push(Message { role, text: text.into(), picture: false });
    }

    /// Appends the role of the assistant, whose answer is to be generated.
    pub fn push_open_answer(&mut self) {
        self.push(Role::Assistant, "");
    }

    /// The conversation as text (the reference's `get_prompt`).
    ///
    /// # Errors
    /// [`ConversationError::NoOpening`] where a Llama-2 layout does not begin with a user's text.
    pub fn prompt(&self) -> Result<Prompt, ConversationError> {
        let template = &self.template;
        let messages = self.with_picture_in_front();
        let mut prompt = Prompt { text: String::new(), answers: Vec::new() };
        match template.style {
            SeparatorStyle::Single | SeparatorStyle::Two => {
                prompt.text = format!("{}{}", template.system, template.sep);
                for (i, message) in messages.iter().enumerate() {
                    prompt.text += template.role(message.role);
                    prompt.text += ":";
                    prompt.add(message, " ", self.separator(i));
                }
            }
            SeparatorStyle::Mpt | SeparatorStyle::Llama3 | SeparatorStyle::Qwen2 => {
                prompt.text = format!("{}{}", template.system, template.sep);
                for message in &messages {
                    prompt.text += template.role(message.role);
                    prompt.add(message, "", template.sep);
                }
            }
            SeparatorStyle::Plain => {
                prompt.text = template.system.to_string();
                for (i, message) in messages.iter().enumerate() {
                    prompt.add(message, "", self.separator(i));
                }
            }
            SeparatorStyle::Llama2 => {
                let opens = messages.first().is_none_or(|m| m.role == Role::User && m.is_written());
                if !opens {
                    return Err(ConversationError::NoOpening(template.name.into()));
                }
                for (i, message) in messages.iter().enumerate() {
                    prompt.add_llama_2(template, i, message);
                }
                prompt.strip_front(template.sep);
            }
        }
        Ok(prompt)
    }

    /// What stands behind message `i`: separators go by position, not by role, as in the reference.
    fn separator(&self, i: usize) -> &'static str {
        match (self.template.style, i % 2) {
            (SeparatorStyle::Two | SeparatorStyle::Plain, 1) => {
                self.template.sep2.unwrap_or(self.template.sep)
            }
            _ => self.template.sep,
        }
    }

    /// The messages, the tag of a first message's picture moved to its front.
    fn with_picture_in_front(&self) -> Vec<Message> {
        let mut messages = self.messages.clone();
        let Some(first) = messages.first_mut().filter(|message| message.picture) else { return messages };
        let said = super::turn::strip(&first.text.replace(IMAGE_TAG, "")).to_owned();
        if self.template.wraps_images() {
            *first = Message { role: first.role, text: said, picture: false };
            let shown = |role, text: &str| Message { role, text: text.into(), picture: false };
            let exchange = [shown(Role::User, "<Image><image></Image>"), shown(Role::Assistant, "Received.")];
            messages.splice(0..0, exchange);
        } else {
            first.text = format!("{IMAGE_TAG}\n{said}");
        }
        messages
    }
}

impl Message {
    /// Whether more than the role is written.
    fn is_written(&self) -> bool {
        self.picture || !self.text.is_empty()
    }
}

impl Prompt {
    /// Appends a message's text, if there is one, between `before` and `behind`.
    fn add(&mut self, message: &Message, before: &str, behind: &str) {
        if !message.is_written() {
            return;
        }
        let start = self.text.len();
        self.text += before;
        self.text += &message.text;
        self.text += behind;
        if message.role == Role::Assistant {
            self.answers.push(start..self.text.len());
        }
    }

    fn add_llama_2(&mut self, template: &Template, i: usize, message: &Message) {
        if !message.is_written() {
            return;
        }
        if i % 2 == 1 {
            return self.add(message, " ", &format!(" {}", template.sep2.unwrap_or_default()));
        }
        self.text += template.sep;
        self.text += "[INST] ";
        if i == 0 && !template.system.is_empty() {
            self.text += &format!("<<SYS>>\n{}\n<</SYS>>\n\n", template.system);
        }
        self.text += &message.text;
        self.text += " [/INST]";
    }

    /// Python's `lstrip(characters)`: takes any of the characters off the front, in any order.
    fn strip_front(&mut self, characters: &str) {
        let kept = self.text.trim_start_matches(|c| characters.contains(c)).len();
        let gone = self.text.len() - kept;
        self.text.drain(..gone);
        for answer in &mut self.answers {
            *answer = answer.start.saturating_sub(gone)..answer.end.saturating_sub(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn golden() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/conversations/prompts.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn prompts_equal_the_references() {
        for case in golden()["prompts"].as_array().unwrap() {
            let Some(expected) = case["prompt"].as_str() else { continue };
            let template = Template::by_name(case["template"].as_str().unwrap()).unwrap();
            let mut conversation = Conversation::new(template);
            for message in case["messages"].as_array().unwrap() {
                let role = if message["role_index"] == 0 { Role::User } else { Role::Assistant };
                conversation.push(role, message["text"].as_str().unwrap_or_default());
                conversation.messages.last_mut().unwrap().picture = message["with_image_tuple"] == true;
            }
            assert_eq!(conversation.prompt().unwrap().text, expected, "{}", case["case"]);
        }
    }

    #[test]
    fn answers_are_found_behind_their_roles() {
        let answers = |name: &str| {
            let mut conversation = Conversation::bare(Template::by_name(name).unwrap());
            conversation.push(Role::User, "Hi?");
            conversation.push(Role::Assistant, "Ho.");
            conversation.push(Role::User, "And?");
            conversation.push_open_answer();
            let prompt = conversation.prompt().unwrap();
            let said: Vec<_> =
                prompt.answers.into_iter().map(|answer| prompt.text[answer].to_owned()).collect();
            said.join("|")
        };
        assert_eq!(answers("v1"), " Ho.</s>");
        assert_eq!(answers("llava_llama_2"), " Ho. </s>");
        assert_eq!(answers("mistral_instruct"), " Ho. </s>");
        assert_eq!(answers("llama_3"), "Ho.<|eot_id|>");
        assert_eq!(answers("qwen_2"), "Ho.<|im_end|>");
        assert_eq!(answers("llava_v0"), " Ho.###");
    }

    #[test]
    fn llama_2_wants_a_question_first() {
        let mut conversation = Conversation::new(Template::by_name("llama_2").unwrap());
        assert_eq!(conversation.prompt().unwrap().text, "");
        conversation.push_open_answer();
        let error = conversation.prompt().unwrap_err();
        assert!(error.to_string().contains("\"llama_2\""), "{error}");
    }

    #[test]
    fn the_front_is_stripped_as_a_set_of_characters() {
        let mut prompt = Prompt { text: "s<>s ab".into(), answers: vec![5..6, 6..7] };
        prompt.strip_front("<s>");
        assert_eq!(prompt, Prompt { text: " ab".into(), answers: vec![1..2, 2..3] });
    }

    proptest::proptest! {
        #[test]
        fn every_message_is_in_the_prompt(texts in proptest::collection::vec("\\PC{1,20}", 1..6), at in 0..18usize) {
            let mut conversation = Conversation::new(&Template::all()[at]);
            for (i, text) in texts.iter().enumerate() {
                conversation.push(if i % 2 == 0 { Role::User } else { Role::Assistant }, text.clone());
            }
            let prompt = conversation.prompt().unwrap();
            let mut rest = &prompt.text[..];
            for text in &texts {
                let found = rest.find(text.as_str());
                proptest::prop_assert!(found.is_some(), "{:?} lacks {:?}", prompt.text, text);
                rest = &rest[found.unwrap() + text.len()..];
            }
            let opening = conversation.template.opening.len() / 2;
            proptest::prop_assert_eq!(prompt.answers.len(), opening + texts.len() / 2);
        }
    }
}
