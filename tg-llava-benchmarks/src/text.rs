//! What Python's strings do, which the original scorers rely on.

/// Whether `str.split()` and `str.strip()` see white space; more than Unicode's property has.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `text.split()`.
pub fn words(text: &str) -> Vec<&str> {
    text.split(is_space).filter(|word| !word.is_empty()).collect()
}

/// `text.strip()`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `repr` of a float: the shortest text that reads as the same number.
pub fn float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    match exponent {
        -4..16 => format!("{value:?}"),
        _ => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

/// The strings of a list as Python writes it, such as `['a', "b's"]`; `None` where the text is no such list.
pub fn list(text: &str) -> Option<Vec<String>> {
    let mut chars = strip(text).strip_prefix('[')?.chars().peekable();
    let mut found = Vec::new();
    loop {
        while chars.peek().is_some_and(|&c| is_space(c)) {
            chars.next();
        }
        match chars.next()? {
            ']' => return chars.next().is_none().then_some(found),
            quote @ ('\'' | '"') => found.push(quoted(&mut chars, quote)?),
            _ => return None,
        }
        while chars.peek().is_some_and(|&c| is_space(c)) {
            chars.next();
        }
        match chars.peek()? {
            ',' => drop(chars.next()),
            ']' => {}
            _ => return None,
        }
    }
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()? {
            '\\' => match chars.next()? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                '\n' => {}
                'x' => text.push(code(chars, 2)?),
                'u' => text.push(code(chars, 4)?),
                'U' => text.push(code(chars, 8)?),
                c @ ('\\' | '\'' | '"') => text.push(c),
                other => text.extend(['\\', other]),
            },
            c if c == quote => return Some(text),
            c => text.push(c),
        }
    }
}

fn code(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, digits: usize) -> Option<char> {
    let text: String = chars.take(digits).collect();
    char::from_u32(u32::from_str_radix(&text, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_in_python() {
        for (value, text) in [
            (3.0, "3.0"),
            (0.5, "0.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (-0.0, "-0.0"),
            (1e100, "1e+100"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn lists_are_read_as_in_python() {
        let read = |text| list(text).map(|items| items.join("|"));
        assert_eq!(read(r#"['a', "b's", 'c\'d', 'e\\f\n', '\xe9']"#).as_deref(), Some("a|b's|c'd|e\\f\n|é"));
        assert_eq!(read("[]").as_deref(), Some(""));
        assert_eq!(read(" ['a',] ").as_deref(), Some("a"));
        for wrong in ["a", "['a'", "['a' 'b']", "[a]", "['a']x"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
