use super::{Decoding, Detokenizer, GenerateOptions, StopFilter};
use crate::error::Result;
use crate::tokenizer::TextTokenizer;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn.
    EndOfTurn,
    /// A stop string came up.
    StopString,
    /// The token budget or the context is used up.
    Length,
}

/// One answer as an iterator of text pieces: one a token, which never splits a character and may be empty.
///
/// Dropping it ends the work, so a caller that wants to interrupt just stops iterating.
#[derive(Debug)]
pub struct Answer<'a> {
    decoding: Decoding<'a>,
    detokenizer: Detokenizer<'a>,
    stop: StopFilter,
    /// Leading white space is dropped, as the reference strips its answers.
    started: bool,
    finish: Option<FinishReason>,
}

impl<'a> Answer<'a> {
    /// Text of the first (and only) row of `decoding`.
    pub fn new(decoding: Decoding<'a>, tokenizer: &'a TextTokenizer, options: &GenerateOptions) -> Self {
        Self {
            decoding,
            detokenizer: Detokenizer::new(tokenizer),
            stop: StopFilter::new(&options.stop_strings),
            started: false,
            finish: None,
        }
    }

    /// Tokens so far, the ending one included.
    pub fn token_ids(&self) -> &[i64] {
        &self.decoding.answers()[0]
    }

    /// Why the answer ended; `None` while it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// The whole rest as one text, without trailing white space.
    ///
    /// # Errors
    /// The first error on the way.
    pub fn text(&mut self) -> Result<String> {
        let pieces: Result<String> = self.by_ref().collect();
        Ok(pieces?.trim_end().to_owned())
    }

    /// One step: the text that it made certain, which may be none.
    fn advance(&mut self) -> Result<Option<String>> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let piece = match self.decoding.step()? {
            Some(tokens) => {
                let token = tokens[0].unwrap_or_default();
                if self.decoding.ended(0) {
                    self.end(FinishReason::EndOfTurn)?
                } else {
                    let text = self.detokenizer.push(token)?;
                    let piece = self.stop.push(&text);
                    if self.stop.stopped() {
                        self.finish = Some(FinishReason::StopString);
                    }
                    piece
                }
            }
            None => self.end(FinishReason::Length)?,
        };
        let piece = if self.started { piece } else { piece.trim_start().to_owned() };
        self.started |= !piece.is_empty();
        Ok(Some(piece))
    }

    fn end(&mut self, reason: FinishReason) -> Result<String> {
        self.finish = Some(reason);
        let rest = self.detokenizer.finish()?;
        let mut piece = self.stop.push(&rest);
        if self.stop.stopped() {
            self.finish = Some(FinishReason::StopString);
        } else {
            piece += &self.stop.finish();
        }
        Ok(piece)
    }
}

impl Iterator for Answer<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
