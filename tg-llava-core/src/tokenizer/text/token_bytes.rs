use tokenizers::DecoderWrapper;

use super::{TextTokenizer, WORD_START};

impl TextTokenizer {
    /// The bytes of text that a token stands for inside a text; `None` for an id without a token. They need not be whole
    /// characters. The bytes of a text's tokens in a row are the text, but for a space that a tokenizer puts in front.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.token(id)?;
        if self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id) {
            return Some(token.into_bytes());
        }
        if self.inner.get_decoder().is_some_and(is_byte_level) {
            let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
            return Some(bytes.unwrap_or_else(|| token.into_bytes()));
        }
        Some(match fallback_byte(&token) {
            Some(byte) => vec![byte],
            None => token.replace(WORD_START, " ").into_bytes(),
        })
    }

    /// The bytes that each of `ids`, tokens of a text in a row, adds to it: those of [`Self::token_bytes`], but the replacement
    /// character for each token of a run of SentencePiece's raw bytes that is no UTF-8 as a whole, as decoding has it.
    pub fn bytes_in_text(&self, ids: &[u32]) -> Vec<Vec<u8>> {
        let is_raw = |id: u32| self.token(id).is_some_and(|token| fallback_byte(&token).is_some());
        let mut all = Vec::new();
        for run in ids.chunk_by(|&a, &b| is_raw(a) == is_raw(b)) {
            let bytes: Vec<Vec<u8>> =
                run.iter().map(|&id| self.token_bytes(id).unwrap_or_default()).collect();
            match is_raw(run[0]) && std::str::from_utf8(&bytes.concat()).is_err() {
                true => all.extend(run.iter().map(|_| "\u{FFFD}".as_bytes().to_vec())),
                false => all.extend(bytes),
            }
        }
        all
    }
}

/// The byte of a token such as `<0x0A>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 2)
}

fn is_byte_level(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(is_byte_level),
        _ => false,
    }
}

/// The byte behind a character of GPT-2's alphabet: printable ones stand for themselves, the others for those from U+0100 on, in
/// their order.
fn byte_of(char: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    match u32::from(char).checked_sub(0x100) {
        None => u8::try_from(u32::from(char)).ok().filter(printable),
        Some(number) => (0..=u8::MAX).filter(|byte| !printable(byte)).nth(number as usize),
    }
}
