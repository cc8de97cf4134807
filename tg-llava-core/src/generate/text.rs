use crate::error::Result;
use crate::tokenizer::TextTokenizer;

/// Ids to text while they arrive: never a part of a character, never text that a later id changes.
#[derive(Debug, Clone)]
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
        // A run of byte tokens decodes as a whole: one invalid byte behind it changes the text of all.
        if u32::try_from(id).ok().and_then(|id| self.tokenizer.token(id)).is_some_and(|t| is_byte(&t)) {
            return Ok(String::new());
        }
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
        let common = before.chars().zip(all.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8());
        Ok(all[common.sum::<usize>()..].to_owned())
    }
}

/// Whether a token stands for one raw byte, as SentencePiece writes it: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(name: &str) -> TextTokenizer {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/conversations/tokenizers/");
        TextTokenizer::from_dir(format!("{fixtures}{name}")).unwrap()
    }

    /// Pieces are whole characters, and together they are what decoding everything at once gives.
    #[test]
    fn pieces_add_up_to_the_whole_text() {
        for name in ["llama", "qwen2", "llama3"] {
            let tokenizer = tokenizer(name);
            for text in ["A grey cat, ça va? 日本語 🦀🦀 end\n", "é", "plain words only"] {
                let ids = tokenizer.encode(text, false).unwrap();
                let mut detokenizer = Detokenizer::new(&tokenizer);
                let mut shown = String::new();
                for &id in &ids {
                    let piece = detokenizer.push(i64::from(id)).unwrap();
                    assert!(!piece.contains('\u{FFFD}'), "{name}: {piece:?}");
                    shown += &piece;
                }
                shown += &detokenizer.finish().unwrap();
                assert_eq!(shown, tokenizer.decode_verbatim(&ids, true).unwrap(), "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn invalid_bytes_are_shown_as_the_whole_decodes_them() {
        let tokenizer = tokenizer("llama");
        let byte = |b: u8| tokenizer.token_id(&format!("<0x{b:02X}>")).unwrap();
        let ids = [byte(b'('), byte(0xFF), byte(b'a')];
        let mut detokenizer = Detokenizer::new(&tokenizer);
        let mut shown = String::new();
        for id in ids {
            shown += &detokenizer.push(i64::from(id)).unwrap();
        }
        shown += &detokenizer.finish().unwrap();
        assert_eq!(shown, tokenizer.decode_verbatim(&ids, true).unwrap());
    }
}
