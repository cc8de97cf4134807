//! From bytes to cells: tabs between cells, quotes around those that hold tabs, quotes or line breaks.

/// One line of a table: where it starts in the file, and its cells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Line of the file, from 1.
    pub number: usize,
    pub cells: Vec<String>,
}

/// Splits a text into lines of cells; blank lines are left out. An error is the line on which a quote was opened and never closed.
pub(super) fn split(text: &str) -> Result<Vec<Line>, usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chars = text.chars().peekable();
    let (mut lines, mut number) = (Vec::new(), 1);
    while chars.peek().is_some() {
        let start = number;
        let mut cells = Vec::new();
        loop {
            let (cell, end) = cell(&mut chars, &mut number)?;
            cells.push(cell);
            if end != Some('\t') {
                break;
            }
        }
        if cells.iter().any(|cell| !cell.trim_matches(' ').is_empty()) || cells.len() > 1 {
            lines.push(Line { number: start, cells });
        }
    }
    Ok(lines)
}

/// The next cell, and what ended it: a tab, a line break or the end of the text.
fn cell(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    number: &mut usize,
) -> Result<(String, Option<char>), usize> {
    let mut cell = String::new();
    if chars.next_if_eq(&'"').is_some() {
        let opened = *number;
        loop {
            match chars.next().ok_or(opened)? {
                '"' if chars.next_if_eq(&'"').is_some() => cell.push('"'),
                '"' => break,
                c => {
                    *number += usize::from(c == '\n');
                    cell.push(c);
                }
            }
        }
    }
    // What stands behind a closing quote belongs to the cell too.
    loop {
        match chars.next() {
            Some('\t') => return Ok((cell, Some('\t'))),
            Some('\r') => {
                chars.next_if_eq(&'\n');
                *number += 1;
                return Ok((cell, Some('\n')));
            }
            Some('\n') => {
                *number += 1;
                return Ok((cell, Some('\n')));
            }
            Some(c) => cell.push(c),
            None => return Ok((cell, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str) -> Vec<Vec<String>> {
        split(text).unwrap().into_iter().map(|line| line.cells).collect()
    }

    #[test]
    fn quotes_hold_tabs_line_breaks_and_quotes() {
        let found = split("a\tb\n\"x\ty\"\t\"1\n\"\"2\"\"\"\r\n\n \nq\"r\"\t\n").unwrap();
        let text: Vec<_> = found.iter().map(|line| (line.number, line.cells.join("|"))).collect();
        assert_eq!(text, [(1, "a|b".to_owned()), (2, "x\ty|1\n\"2\"".to_owned()), (6, "q\"r\"|".to_owned())]);
        assert_eq!(cells("\"a\"b\tc"), [["ab", "c"]]);
        assert_eq!(split("a\n\"b\tc\n\nd"), Err(2));
    }
}
