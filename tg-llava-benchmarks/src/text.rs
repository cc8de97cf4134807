//! What Python's strings do, which the original scorers rely on.

/// Whether `str.split()` and `str.strip()` see white space; more than Unicode's property has.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Whether a text counts as Chinese.
pub fn has_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
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

/// `float(text)`: blanks around it, and single underscores between digits, are allowed.
pub fn to_float(text: &str) -> Option<f64> {
    let plain = without_underscores(strip(text))?;
    // Rust reads the same words in the same cases; neither reads a bare exponent or `0x`.
    plain.parse().ok()
}

/// `int(text)`.
pub fn to_integer(text: &str) -> Option<i64> {
    without_underscores(strip(text))?.parse().ok()
}

fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let between = |at: usize| digit(at.checked_sub(1)) && digit(Some(at + 1));
    let fine = bytes.iter().enumerate().all(|(at, &byte)| byte != b'_' || between(at));
    fine.then(|| text.replace('_', ""))
}

/// `round(value, 1)` of numpy: scaled, and to the even one in the middle.
pub fn round_as_numpy(value: f64) -> f64 {
    (10.0 * value).round_ties_even() / 10.0
}

/// `round(value, 1)` of Python: the nearest decimal of the exact value.
pub fn round_as_python(value: f64) -> f64 {
    format!("{value:.1}").parse().unwrap_or(value)
}

/// The items of a list as Python writes it, such as `['a', "b's", 3]`, each as text; `None` where the text is no such list.
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
            first if first.is_ascii_alphanumeric() || "+-.".contains(first) => {
                found.push(bare(first, &mut chars)?);
            }
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

/// A number, or one of Python's three words.
fn bare(first: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut text = String::from(first);
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || "+-._".contains(*c)) {
        text.push(c);
    }
    match text.as_str() {
        "True" | "False" | "None" => Some(text),
        _ => to_integer(&text).map(|value| value.to_string()).or_else(|| to_float(&text).map(float)),
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
    fn numbers_are_read_as_in_python() {
        for (text, value) in [
            (" 1e-1 ", Some(0.1)),
            ("1_0", Some(10.0)),
            ("_1", None),
            ("1__0", None),
            (".5", Some(0.5)),
            ("1,5", None),
        ] {
            assert_eq!(to_float(text), value, "{text}");
        }
        assert_eq!((to_integer(" +12 "), to_integer("0_0"), to_integer("3.0")), (Some(12), Some(0), None));
        assert_eq!((round_as_numpy(0.25), round_as_python(0.25), round_as_python(0.35)), (0.2, 0.2, 0.3));
    }

    #[test]
    fn lists_are_read_as_in_python() {
        let read = |text| list(text).map(|items| items.join("|"));
        assert_eq!(read(r#"['a', "b's", 'c\'d', 'e\\f\n', '\xe9']"#).as_deref(), Some("a|b's|c'd|e\\f\n|é"));
        assert_eq!(read("[]").as_deref(), Some(""));
        assert_eq!(read(" ['a',] ").as_deref(), Some("a"));
        assert_eq!(read("[3, -0.50, 'x', True]").as_deref(), Some("3|-0.5|x|True"));
        for wrong in ["a", "['a'", "['a' 'b']", "[a]", "['a']x"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
