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
