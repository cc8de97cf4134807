//! The texts of the training data, as the decoder and the guide's text tower will see them.

use tg_llava_core::conversation::{
    Conversation, ConversationError, GuideTurn, ImageMarks, Speaker, Template, guide_text, place_image_tags,
};

use super::Texts;
use crate::prepare::PrepareError;
use tg_llava_train::data::{LlavaDataset, Sample};

/// Training data and the layout of their conversations.
pub(super) struct Corpus<'a> {
    pub data: &'a LlavaDataset,
    pub template: &'static Template,
}

impl Corpus<'_> {
    /// Gives `consume` every conversation, written out in the template's layout.
    pub fn with_prompts<T>(
        &self,
        consume: impl FnOnce(Texts) -> Result<T, PrepareError>,
    ) -> Result<T, PrepareError> {
        self.with_texts(|sample| Ok(vec![prompt(sample, self.template)?]), consume)
    }

    /// Gives `consume` every question, as it guides what is seen in the picture.
    pub fn with_questions<T>(
        &self,
        consume: impl FnOnce(Texts) -> Result<T, PrepareError>,
    ) -> Result<T, PrepareError> {
        self.with_texts(questions, consume)
    }

    /// Reads sample by sample; the first error ends the texts and becomes the result.
    fn with_texts<T>(
        &self,
        texts: impl Fn(&Sample) -> Result<Vec<String>, ConversationError> + Sync,
        consume: impl FnOnce(Texts) -> Result<T, PrepareError>,
    ) -> Result<T, PrepareError> {
        let mut failure = None;
        let read = |index| {
            let sample = self.data.sample(index)?;
            texts(&sample).map_err(|source| PrepareError::Conversation {
                path: self.data.path(index).to_path_buf(),
                line: self.data.line(index),
                id: sample.id,
                source,
            })
        };
        let mut all = (0..self.data.len())
            .map_while(|index| match read(index) {
                Ok(texts) => Some(texts),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            })
            .flatten();
        let consumed = consume(&mut all);
        match failure {
            Some(error) => Err(error),
            None => consumed,
        }
    }
}

fn prompt(sample: &Sample, template: &Template) -> Result<String, ConversationError> {
    let placed = match sample.is_text_only() {
        true => sample.conversations.clone(),
        false => place_image_tags(&sample.conversations, template, ImageMarks::None),
    };
    let mut conversation = Conversation::bare(template);
    for turn in placed {
        conversation.push(turn.from.role(), turn.value);
    }
    Ok(conversation.prompt()?.text)
}

fn questions(sample: &Sample) -> Result<Vec<String>, ConversationError> {
    let questions = sample.conversations.iter().filter(|turn| turn.from == Speaker::Human);
    questions.map(|turn| guide_text(std::slice::from_ref(turn), GuideTurn::Last)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use tg_llava_train::data::OnBadSample;

    const GOOD: &str = r#"{"id": "a", "image": "a.png", "conversations": [
        {"from": "human", "value": "What? <image>"}, {"from": "gpt", "value": "red"},
        {"from": "human", "value": " And now? "}, {"from": "gpt", "value": "blue"}]}"#;
    const ANSWER_FIRST: &str = r#"{"id": "b", "conversations": [{"from": "gpt", "value": "red"}]}"#;

    fn texts(json: &str, template: &str) -> (Result<Vec<String>, PrepareError>, Vec<String>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(json.as_bytes()).unwrap();
        let data = LlavaDataset::open(file.path(), OnBadSample::Error).unwrap();
        let corpus = Corpus { data: &data, template: Template::by_name(template).unwrap() };
        let prompts = corpus.with_prompts(|texts| Ok(texts.collect()));
        (prompts, corpus.with_questions(|texts| Ok(texts.collect())).unwrap())
    }

    #[test]
    fn prompts_are_laid_out_and_questions_are_bare() {
        let (prompts, questions) = texts(&format!("[{GOOD}]"), "vicuna_v1");
        let prompts = prompts.unwrap();
        assert!(prompts[0].starts_with("A chat between"), "{prompts:?}");
        let end = "USER: <image>\nWhat? ASSISTANT: red</s>USER:  And now?  ASSISTANT: blue</s>";
        assert!(prompts[0].ends_with(end), "{prompts:?}");
        assert_eq!(questions, ["What?", "And now?"]);
    }

    #[test]
    fn a_sample_that_the_template_cannot_write_is_named() {
        let (prompts, questions) = texts(&format!("[{GOOD},\n{ANSWER_FIRST}]"), "llama_2");
        let error = prompts.unwrap_err().to_string();
        assert!(error.contains("line 4, sample b: "), "{error}");
        assert_eq!(questions.len(), 2);
    }
}
