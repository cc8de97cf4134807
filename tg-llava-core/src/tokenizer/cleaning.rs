//! What happens to a guide text before the text tower's tokenizer sees it.

use tokenizers::NormalizedString;

/// How a CLIP tower's guide text is cleaned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GuideCleaning {
    /// What `tokenizer.json` prescribes: NFC, one space for each run of white space, lower case. This is
    /// transformers' fast tokenizer, with which the reference answers questions.
    #[default]
    Tokenizer,
    /// First the repairs of the Python package ftfy, which transformers' slow tokenizer applies where that
    /// package is installed: HTML entities, ligatures, full-width letters, curly quotes, control characters.
    /// Its repair of wrongly decoded text (mojibake) is not among them.
    Ftfy,
}

impl GuideCleaning {
    /// The text that goes into the tokenizer.
    pub(super) fn apply(self, text: &str) -> String {
        match self {
            Self::Tokenizer => text.to_owned(),
            Self::Ftfy => repair(text),
        }
    }
}

/// SigLIP's canonical form: lower case, no ASCII punctuation, single spaces, none at the end.
///
/// The reference marks the beginning of the text before it takes the punctuation out, so that a text which
/// then begins with a space has a word mark of its own there; that is kept.
pub(super) fn canonicalize(text: &str) -> String {
    const WORD_MARK: char = '\u{2581}';
    let text = text.replace(WORD_MARK, " ").to_lowercase();
    let kept: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let words = kept.split_whitespace().collect::<Vec<_>>().join(" ");
    match kept.starts_with(char::is_whitespace) && !words.is_empty() {
        true => format!("{WORD_MARK}{words}"),
        false => words,
    }
}

/// ftfy's `fix_text` with its default settings, but for mojibake.
fn repair(text: &str) -> String {
    let text = if text.contains('<') { text.to_owned() } else { unescape_html(text) };
    let mut out = String::with_capacity(text.len());
    for c in without_terminal_escapes(&text).chars() {
        match c {
            '\u{80}'..='\u{9f}' => out.push(windows_1252(c)),
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => out.push('\''),
            '\u{201c}'..='\u{201f}' => out.push('"'),
            '\u{2028}' | '\u{2029}' | '\r' => out.push('\n'),
            '\u{3000}' => out.push(' '),
            '\u{ff01}'..='\u{ffef}' => out.push_str(&compatible(c)),
            _ if is_removed_control(c) => {}
            _ => match ligature(c) {
                Some(letters) => out.push_str(letters),
                None => out.push(c),
            },
        }
    }
    let mut normalized = NormalizedString::from(out);
    normalized.nfc();
    normalized.get().to_owned()
}

fn compatible(c: char) -> String {
    let mut normalized = NormalizedString::from(c.to_string());
    normalized.nfkc();
    normalized.get().to_owned()
}

fn is_removed_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}')
        || matches!(c, '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// A C1 control read as what Windows-1252 has in its place; U+0085 is a line break.
fn windows_1252(c: char) -> char {
    const TABLE: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '\'', '\'', '"', '"', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    TABLE[(c as usize - 0x80) % TABLE.len()]
}

/// `text` without sequences such as `ESC [ 1 ; 31 m`.
fn without_terminal_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let tail = &rest[at + 2..];
        let end = tail.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(tail.len());
        out.push_str(&rest[..at]);
        rest = match tail[end..].chars().next() {
            Some(letter) if letter.is_ascii_alphabetic() => &tail[end + 1..],
            _ => tail,
        };
    }
    out + rest
}

/// Numeric entities and the common named ones, replaced by their characters.
fn unescape_html(text: &str) -> String {
    const LONGEST: usize = 24;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = rest[1..]
            .find(';')
            .filter(|&end| end <= LONGEST)
            .and_then(|end| Some((character(&rest[1..=end])?, end)));
        match entity {
            Some((c, end)) => {
                out.push(c);
                rest = &rest[end + 2..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

fn character(entity: &str) -> Option<char> {
    if let Some(number) = entity.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return char::from_u32(code.ok()?);
    }
    Some(match entity {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        "hellip" => '…',
        "ndash" => '–',
        "mdash" => '—',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "copy" => '©',
        "deg" => '°',
        "times" => '×',
        "eacute" => 'é',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ftfy_repairs_typography() {
        let repaired = GuideCleaning::Ftfy.apply("\u{201c}ﬁne\u{201d} \u{2018}？Ａ\u{3000}e\u{301}\u{feff}");
        assert_eq!(repaired, "\"fine\" '?A é");
    }

    #[test]
    fn entities_are_left_alone_in_markup() {
        assert_eq!(GuideCleaning::Ftfy.apply("a &amp; b &#65; &nope; &"), "a & b A &nope; &");
        assert_eq!(GuideCleaning::Ftfy.apply("<b> &amp;"), "<b> &amp;");
    }

    #[test]
    fn terminal_escapes_go() {
        assert_eq!(GuideCleaning::Ftfy.apply("\u{1b}[1;31mred\u{1b}[0m"), "red");
        assert_eq!(GuideCleaning::Ftfy.apply("\u{1b}["), "");
    }

    #[test]
    fn siglip_text_is_bare_words() {
        assert_eq!(canonicalize("A Photo, of: a CAT's  tail!\n"), "a photo of a cats tail");
        // The word mark of a text that begins with a space stays, as in the reference.
        assert_eq!(canonicalize("  A photo"), "\u{2581}a photo");
        assert_eq!(canonicalize("?!"), "");
    }

    proptest::proptest! {
        #[test]
        fn cleaning_takes_any_text(text in "\\PC*|[\u{0}-\u{ff}&;#x\u{1b}\\[]{0,40}") {
            GuideCleaning::Ftfy.apply(&text);
            let canonical = canonicalize(&text);
            proptest::prop_assert_eq!(canonicalize(&canonical), canonical);
        }
    }
}
