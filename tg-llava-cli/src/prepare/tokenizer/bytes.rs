//! Bytes as printable characters, as GPT-2's and CLIP's vocabularies write them.

/// The character that stands for `byte`: itself where it is printable, else one from U+0100 on, in order.
pub(super) fn byte_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count();
    char::from_u32(0x100 + before as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The characters of `bytes` in the order of those vocabularies: by code point.
pub(super) fn byte_chars(bytes: impl Iterator<Item = u8>) -> Vec<char> {
    let mut chars: Vec<char> = bytes.map(byte_char).collect();
    chars.sort_unstable();
    chars
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn the_alphabet_is_gpt_2s() {
        let ours: HashSet<char> = byte_chars(0..=255).into_iter().collect();
        assert_eq!(ours, ByteLevel::alphabet().into_iter().collect());
        // 'Ġ' is the space and 'Ċ' the line break.
        assert_eq!([b' ', b'\n', b'a'].map(byte_char), ['Ġ', 'Ċ', 'a']);
        assert_eq!(byte_chars(0..=255)[..3], ['!', '"', '#']);
    }
}
