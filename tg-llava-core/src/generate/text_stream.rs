use super::{Detokenizer, StopFilter};
use crate::error::Result;
use crate::tokenizer::TextTokenizer;

/// An answer's text while its tokens arrive: whole characters, nothing of a stop string, no white space in front.
#[derive(Debug, Clone)]
pub(super) struct TextStream<'t> {
    detokenizer: Detokenizer<'t>,
    stop: StopFilter,
    /// Leading white space is dropped, as the reference strips its answers.
    started: bool,
}

impl<'t> TextStream<'t> {
    pub fn new(tokenizer: &'t TextTokenizer, stop_strings: &[String]) -> Self {
        Self { detokenizer: Detokenizer::new(tokenizer), stop: StopFilter::new(stop_strings), started: false }
    }

    /// Adds a token and returns the text that became certain.
    pub fn push(&mut self, token: i64) -> Result<String> {
        let text = self.detokenizer.push(token)?;
        Ok(self.show(&text))
    }

    /// What was held back, once no more tokens come.
    pub fn finish(&mut self) -> Result<String> {
        let rest = self.detokenizer.finish()?;
        Ok(self.show(&rest) + &self.stop.finish())
    }

    /// Whether a stop string came up.
    pub fn stopped(&self) -> bool {
        self.stop.stopped()
    }

    /// White space in front is no part of the answer, so that no stop string is found in it.
    fn show(&mut self, text: &str) -> String {
        let text = if self.started { text } else { text.trim_start() };
        self.started |= !text.is_empty();
        self.stop.push(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_string_is_not_found_in_front_of_the_answer() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/conversations/tokenizers/qwen2");
        let tokenizer = TextTokenizer::from_dir(folder).unwrap();
        let mut stream = TextStream::new(&tokenizer, &[" ".into()]);
        let mut shown = String::new();
        for id in tokenizer.encode(" circle and square", false).unwrap() {
            shown += &stream.push(i64::from(id)).unwrap();
        }
        shown += &stream.finish().unwrap();
        assert_eq!((shown.as_str(), stream.stopped()), ("circle", true));
    }
}
