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
        let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => Some(vec![byte]),
            None => Some(token.replace(WORD_START, " ").into_bytes()),
        }
    }
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
