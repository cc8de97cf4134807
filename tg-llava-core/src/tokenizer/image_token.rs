//! Prompts with `<image>` in them: the tag becomes one id that no vocabulary has.

use std::ops::Range;

use super::{TextTokenizer, TokenizerError};
use crate::multimodal::IMAGE_TOKEN_INDEX;

/// Marks in a prompt where the tokens of a picture go.
pub const IMAGE_TAG: &str = "<image>";

/// A prompt as ids, each with the place in the prompt it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// Token ids; [`IMAGE_TOKEN_INDEX`] stands for a picture.
    pub ids: Vec<i64>,
    /// Byte range of the prompt under each id; `None` for tokens that the tokenizer adds by itself
    /// (BOS, EOS). Tokens that share a character share its range.
    pub spans: Vec<Option<Range<usize>>>,
}

impl Tokenized {
    /// Number of ids.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Keeps the first `length` ids.
    pub fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
        self.spans.truncate(length);
    }

    /// Appends `other`, which starts `offset` bytes into the prompt, without its first `skip` ids.
    fn append(&mut self, other: Self, offset: usize, skip: usize) {
        self.ids.extend(other.ids.into_iter().skip(skip));
        let shifted = other.spans.into_iter().skip(skip);
        self.spans.extend(shifted.map(|span| span.map(|s| s.start + offset..s.end + offset)));
    }
}

impl TextTokenizer {
    /// Tokenizes `prompt`, each `<image>` as [`IMAGE_TOKEN_INDEX`], as LLaVA's `tokenizer_image_token`.
    ///
    /// The text between the tags is tokenized piece by piece. Where the first piece begins with BOS, the
    /// first id of EVERY piece is taken for a BOS and dropped but for one at the very start. With a
    /// tokenizer that adds no BOS, and a prompt that spells it out, this drops the first real id behind
    /// each picture: checkpoints were trained so, so it is kept.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the tokenizer refuses the text.
    pub fn encode_with_images(&self, prompt: &str) -> Result<Tokenized, TokenizerError> {
        self.encode_between_images(prompt.split(IMAGE_TAG))
    }

    /// As [`Self::encode_with_images`], from the pieces of a prompt between its pictures: `<image>` inside a piece
    /// is text.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the tokenizer refuses the text.
    pub fn encode_between_images<'p>(
        &self,
        pieces: impl IntoIterator<Item = &'p str>,
    ) -> Result<Tokenized, TokenizerError> {
        let mut out = Tokenized::default();
        let mut offset = 0;
        let mut skip = 0;
        for (i, piece) in pieces.into_iter().enumerate() {
            let tokens = self.encode_with_spans(piece, true)?;
            if i == 0 {
                let begins = self.special().bos.map(i64::from);
                if begins.is_some() && tokens.ids.first().copied() == begins {
                    skip = 1;
                    out.ids.extend(begins);
                    out.spans.push(tokens.spans[0].clone());
                }
            } else {
                out.ids.push(IMAGE_TOKEN_INDEX);
                out.spans.push(Some(offset - IMAGE_TAG.len()..offset));
            }
            out.append(tokens, offset, skip);
            offset += piece.len() + IMAGE_TAG.len();
        }
        Ok(out)
    }
}
