//! How a conversation is laid out as text for one family of models.

use std::borrow::Cow;

use super::ConversationError;
use super::catalog::TEMPLATES;
use crate::tokenizer::TextTokenizer;

/// Who a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// How messages are joined; the names follow LLaVA's `SeparatorStyle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeparatorStyle {
    /// `role: message` and one separator.
    Single,
    /// `role: message`, with one separator behind the user and another behind the assistant.
    Two,
    /// ChatML: role header, message, end mark.
    Mpt,
    /// Messages alone.
    Plain,
    /// `[INST] ... [/INST] answer </s>`.
    Llama2,
    /// Role header, message, `<|eot_id|>`.
    Llama3,
    /// ChatML without a line break behind the end mark.
    Qwen2,
}

impl SeparatorStyle {
    /// The name in the reference's code.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "SINGLE",
            Self::Two => "TWO",
            Self::Mpt => "MPT",
            Self::Plain => "PLAIN",
            Self::Llama2 => "LLAMA_2",
            Self::Llama3 => "LLAMA_3",
            Self::Qwen2 => "QWEN2",
        }
    }
}

/// One way to write a conversation (the reference's `conv_templates`).
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The name it is asked for by.
    pub name: &'static str,
    /// What stands before the first message.
    pub system: Cow<'static, str>,
    /// What introduces the user and the assistant.
    pub roles: [&'static str; 2],
    /// How messages are joined.
    pub style: SeparatorStyle,
    /// The separator behind a message, or behind the user's where there are two.
    pub sep: &'static str,
    /// The separator behind the assistant's message.
    pub sep2: Option<&'static str>,
    /// The reference's version string; labels and picture tags depend on it.
    pub version: &'static str,
    /// Messages that every conversation begins with, outside training.
    pub opening: &'static [(Role, &'static str)],
}

impl Template {
    /// All templates.
    pub fn all() -> &'static [Self] {
        &TEMPLATES
    }

    /// The names of all templates.
    pub fn names() -> Vec<&'static str> {
        TEMPLATES.iter().map(|template| template.name).collect()
    }

    /// The template of this name.
    ///
    /// # Errors
    /// [`ConversationError::UnknownTemplate`], which lists the names there are.
    pub fn by_name(name: &str) -> Result<&'static Self, ConversationError> {
        let found = TEMPLATES.iter().find(|template| template.name == name);
        found.ok_or_else(|| ConversationError::UnknownTemplate { name: name.into() })
    }

    /// The template the reference's trainer takes for `--version`: the one of that name; else by part of the name
    /// `llama_3` or `qwen_2`; else `vicuna_v1`.
    pub fn for_version(version: &str) -> &'static Self {
        let name = if version.contains("llama_3") {
            "llama_3"
        } else if version.contains("qwen_2") {
            "qwen_2"
        } else {
            "vicuna_v1"
        };
        Self::by_name(version).unwrap_or_else(|_| Self::named(name))
    }

    /// The template to talk to a checkpoint with: `declared` where its config names one; else by the name of its
    /// folder (`qwen2`, `llama3`); else by the end-of-turn token that its tokenizer knows; else `vicuna_v1`.
    ///
    /// # Errors
    /// [`ConversationError::UnknownTemplate`] where `declared` is no template.
    pub fn for_model(
        declared: Option<&str>,
        folder: &str,
        tokenizer: &TextTokenizer,
    ) -> Result<&'static Self, ConversationError> {
        if let Some(name) = declared {
            return Self::by_name(name);
        }
        let folder: String = folder.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        let knows = |token: &str| tokenizer.token_id(token).is_some();
        Ok(Self::named(if folder.contains("qwen2") {
            "qwen_2"
        } else if folder.contains("llama3") {
            "llama_3"
        } else if knows("<|im_end|>") {
            "qwen_2"
        } else if knows("<|eot_id|>") {
            "llama_3"
        } else {
            "vicuna_v1"
        }))
    }

    /// One of the catalog's own names.
    fn named(name: &'static str) -> &'static Self {
        TEMPLATES.iter().find(|template| template.name == name).expect("the catalog holds its own names")
    }

    /// This template with another text of the system; what marks it as such stays.
    pub fn with_system(&self, text: &str) -> Self {
        let mark = match self.style {
            SeparatorStyle::Mpt | SeparatorStyle::Qwen2 => "<|im_start|>system\n",
            SeparatorStyle::Llama3 => "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n",
            SeparatorStyle::Single | SeparatorStyle::Two | SeparatorStyle::Plain | SeparatorStyle::Llama2 => {
                ""
            }
        };
        Self { system: format!("{mark}{text}").into(), ..self.clone() }
    }

    /// What introduces messages of `role`.
    pub fn role(&self, role: Role) -> &'static str {
        self.roles[role as usize]
    }

    /// Whether pictures are wrapped as `<Image><image></Image>`.
    pub fn wraps_images(&self) -> bool {
        self.version.contains("mmtag")
    }

    /// The text that ends the assistant's turn: generation stops where it appears.
    pub fn end_mark(&self) -> &'static str {
        match self.style {
            SeparatorStyle::Two | SeparatorStyle::Llama2 => self.sep2.unwrap_or(self.sep),
            SeparatorStyle::Single
            | SeparatorStyle::Mpt
            | SeparatorStyle::Plain
            | SeparatorStyle::Llama3
            | SeparatorStyle::Qwen2 => self.sep,
        }
    }

    /// The ids that end the assistant's turn: EOS, and the end mark where it is one token.
    pub fn end_ids(&self, tokenizer: &TextTokenizer) -> Vec<u32> {
        let mark = Some(self.end_mark()).filter(|_| self.style != SeparatorStyle::Plain);
        let mut ids: Vec<u32> = tokenizer.special().eos.into_iter().collect();
        ids.extend(mark.and_then(|mark| tokenizer.token_id(mark)).filter(|id| !ids.contains(id)));
        ids
    }

    /// The id that fills up a training batch, as the reference's trainer chooses it for this template.
    pub fn pad_id(&self, tokenizer: &TextTokenizer) -> u32 {
        match self.style {
            SeparatorStyle::Qwen2 | SeparatorStyle::Single => {
                tokenizer.own_pad_id().unwrap_or(tokenizer.pad_id())
            }
            _ => tokenizer.pad_id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Template::by_name("vicuna").unwrap_err().to_string();
        assert!(error.contains("\"vicuna\"") && error.contains("vicuna_v1, "), "{error}");
    }

    #[test]
    fn versions_fall_back_as_in_the_reference() {
        let name = |version| Template::for_version(version).name;
        assert_eq!(name("plain"), "plain");
        assert_eq!(name("llama_3_chat"), "llama_3");
        assert_eq!(name("my_qwen_2"), "qwen_2");
        assert_eq!(name("anything"), "vicuna_v1");
    }

    #[test]
    fn another_system_text_keeps_its_marks() {
        for template in Template::all() {
            let marked = template.system.rfind('\n').filter(|_| template.roles[0].ends_with('\n'));
            let own = &template.system[marked.map_or(0, |at| at + 1)..];
            assert_eq!(template.with_system(own), *template, "{}", template.name);
        }
        let other = Template::named("qwen_2").with_system("Be brief.");
        assert_eq!(other.system, "<|im_start|>system\nBe brief.");
    }

    #[test]
    fn every_template_has_an_end_mark_and_a_name_of_its_own() {
        let mut names = Template::names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Template::all().len());
        assert!(Template::all().iter().all(|template| !template.end_mark().is_empty()));
    }
}
