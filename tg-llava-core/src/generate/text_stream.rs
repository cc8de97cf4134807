use super::{Detokenizer, StopFilter};
use crate::error::Result;
use crate::tokenizer::TextTokenizer;

/// An answer's text while its tokens arrive: whole characters, nothing of a stop string, no white space in front.
#[derive(Debug)]
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
        let piece = self.stop.push(&text);
        Ok(self.begin(piece))
    }

    /// What was held back, once no more tokens come.
    pub fn finish(&mut self) -> Result<String> {
        let rest = self.detokenizer.finish()?;
        let piece = self.stop.push(&rest) + &self.stop.finish();
        Ok(self.begin(piece))
    }

    /// Whether a stop string came up.
    pub fn stopped(&self) -> bool {
        self.stop.stopped()
    }

    fn begin(&mut self, piece: String) -> String {
        let piece = if self.started { piece } else { piece.trim_start().to_owned() };
        self.started |= !piece.is_empty();
        piece
    }
}
