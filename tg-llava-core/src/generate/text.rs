use crate::error::Result;
use crate::tokenizer::TextTokenizer;

/// Ids to text while they arrive: never a part of a character, never text that a later id changes.
#[derive(Debug)]
pub struct Detokenizer<'a> {
    tokenizer: &'a TextTokenizer,
    ids: Vec<u32>,
    /// Decoding starts here, so that the first shown id has its neighbour before it (for its space).
    context: usize,
    /// Ids before this one are shown.
    shown: usize,
}

impl<'a> Detokenizer<'a> {
    /// Nothing read yet.
    pub fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), context: 0, shown: 0 }
    }

    /// Adds an id and returns the text that became certain.
    ///
    /// # Errors
    /// Where the tokenizer cannot decode.
    pub fn push(&mut self, id: i64) -> Result<String> {
        self.ids.extend(u32::try_from(id));
        let new = self.pending()?;
        // An incomplete character decodes to the replacement character; the next ids complete it.
        if new.is_empty() || new.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        self.context = self.shown;
        self.shown = self.ids.len();
        Ok(new)
    }

    /// What is left once no more ids come.
    ///
    /// # Errors
    /// Where the tokenizer cannot decode.
    pub fn finish(&mut self) -> Result<String> {
        let rest = self.pending()?;
        self.context = self.ids.len();
        self.shown = self.ids.len();
        Ok(rest)
    }

    fn pending(&self) -> Result<String> {
        let before = self.tokenizer.decode_verbatim(&self.ids[self.context..self.shown], true)?;
        let all = self.tokenizer.decode_verbatim(&self.ids[self.context..], true)?;
        Ok(all.strip_prefix(before.as_str()).unwrap_or_default().to_owned())
    }
}
