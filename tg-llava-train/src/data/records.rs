//! Finds the samples of a JSON array or of a JSON-lines file without parsing or keeping the whole file.

use std::io::{self, BufRead};

/// Why the file's outer layout could not be followed.
#[derive(Debug)]
pub(super) enum ScanError {
    /// Reading failed.
    Io(io::Error),
    /// Something stands where it must not; line from 1.
    Layout { line: u64, message: String },
}

impl From<io::Error> for ScanError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// Where a record lies; its bytes are in the buffer given to [`Records::next_into`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Byte offset in the file.
    pub offset: u64,
    /// Line on which it starts, from 1.
    pub line: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Unknown,
    /// `[ {..}, {..} ]`; whether a record came before, so that a comma is due.
    Array {
        comma_due: bool,
    },
    /// One record a line.
    Lines,
    Done,
}

/// Record by record reader over `R`; tells an array from lines by the first byte.
pub(super) struct Records<R> {
    reader: R,
    layout: Layout,
    offset: u64,
    line: u64,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, layout: Layout::Unknown, offset: 0, line: 1 }
    }

    /// Puts the next record's bytes into `buffer`; `None` at the end of the file.
    ///
    /// In an array a record is whatever its braces enclose, in a JSON-lines file a line that is not blank;
    /// whether it is a valid sample is for the caller to see.
    pub(super) fn next_into(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Span>, ScanError> {
        buffer.clear();
        if self.layout == Layout::Unknown {
            self.layout = match self.peek_past_blanks()? {
                None => Layout::Done,
                Some(b'[') => {
                    self.consume(1);
                    Layout::Array { comma_due: false }
                }
                Some(b'{') => Layout::Lines,
                Some(byte) => {
                    return Err(self.unexpected(byte, "`[` (an array of samples) or `{` (one sample a line)"));
                }
            };
        }
        match self.layout {
            Layout::Array { comma_due } => self.next_element(comma_due, buffer),
            Layout::Lines => self.next_line(buffer),
            Layout::Unknown | Layout::Done => Ok(None),
        }
    }

    fn next_element(&mut self, comma_due: bool, buffer: &mut Vec<u8>) -> Result<Option<Span>, ScanError> {
        let mut next = self.peek_past_blanks()?;
        if next == Some(b']') {
            self.consume(1);
            self.layout = Layout::Done;
            return match self.peek_past_blanks()? {
                None => Ok(None),
                Some(byte) => Err(self.unexpected(byte, "the end of the file after `]`")),
            };
        }
        if comma_due {
            match next {
                Some(b',') => {
                    self.consume(1);
                    next = self.peek_past_blanks()?;
                }
                Some(byte) => return Err(self.unexpected(byte, "`,` or `]` after a sample")),
                None => return Err(self.cut("before the closing `]`")),
            }
        }
        match next {
            Some(b'{') => {}
            Some(byte) => return Err(self.unexpected(byte, "`{`, the start of a sample")),
            None => return Err(self.cut("before the closing `]`")),
        }
        let span = Span { offset: self.offset, line: self.line };
        self.take_object(buffer)?;
        self.layout = Layout::Array { comma_due: true };
        Ok(Some(span))
    }

    /// Copies bytes up to the brace that closes the one at hand; braces inside strings do not count.
    fn take_object(&mut self, buffer: &mut Vec<u8>) -> Result<(), ScanError> {
        let start_line = self.line;
        let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Err(self.cut(&format!("inside the sample that starts at line {start_line}")));
            }
            let mut end = None;
            for (at, &byte) in chunk.iter().enumerate() {
                if byte == b'\n' {
                    self.line += 1;
                }
                if in_string {
                    match byte {
                        _ if escaped => escaped = false,
                        b'\\' => escaped = true,
                        b'"' => in_string = false,
                        _ => {}
                    }
                    continue;
                }
                match byte {
                    b'"' => in_string = true,
                    b'{' => depth += 1,
                    b'}' => {
                        depth -= 1;
                        if depth == 0 {
                            end = Some(at + 1);
                            break;
                        }
                    }
                    _ => {}
                }
            }
            let taken = end.unwrap_or(chunk.len());
            buffer.extend_from_slice(&chunk[..taken]);
            self.consume(taken);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    fn next_line(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Span>, ScanError> {
        if self.peek_past_blanks()?.is_none() {
            self.layout = Layout::Done;
            return Ok(None);
        }
        let span = Span { offset: self.offset, line: self.line };
        self.offset += self.reader.read_until(b'\n', buffer)? as u64;
        if buffer.last() == Some(&b'\n') {
            self.line += 1;
        }
        buffer.truncate(buffer.trim_ascii_end().len());
        Ok(Some(span))
    }

    /// The next byte that is not JSON whitespace, left unread.
    fn peek_past_blanks(&mut self) -> Result<Option<u8>, ScanError> {
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let blanks = chunk.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count();
            let newlines = chunk[..blanks].iter().filter(|&&b| b == b'\n').count();
            let next = chunk.get(blanks).copied();
            self.line += newlines as u64;
            self.consume(blanks);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.offset += count as u64;
    }

    fn unexpected(&self, byte: u8, expected: &str) -> ScanError {
        let message = format!("found `{}`, expected {expected}", byte.escape_ascii());
        ScanError::Layout { line: self.line, message }
    }

    fn cut(&self, place: &str) -> ScanError {
        ScanError::Layout { line: self.line, message: format!("the file ends {place}; it is cut short") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufReader;

    fn all(text: &str, capacity: usize) -> Result<Vec<(Span, String)>, String> {
        let mut records = Records::new(BufReader::with_capacity(capacity, text.as_bytes()));
        let (mut out, mut buffer) = (Vec::new(), Vec::new());
        loop {
            match records.next_into(&mut buffer) {
                Ok(Some(span)) => out.push((span, String::from_utf8(buffer.clone()).unwrap())),
                Ok(None) => return Ok(out),
                Err(ScanError::Layout { line, message }) => return Err(format!("{line}: {message}")),
                Err(ScanError::Io(error)) => return Err(error.to_string()),
            }
        }
    }

    #[test]
    fn an_array_is_cut_at_its_own_braces() {
        let text = "[\n {\"a\": \"}]\\\"{\"},\n {\"b\": {\"c\": [1]}}\n]\n";
        let found = all(text, 3).unwrap();
        assert_eq!(found[0].1, "{\"a\": \"}]\\\"{\"}");
        assert_eq!(found[1].1, "{\"b\": {\"c\": [1]}}");
        assert_eq!((found[0].0.line, found[1].0.line), (2, 3));
        assert_eq!(&text[found[1].0.offset as usize..][..4], "{\"b\"");
    }

    #[test]
    fn lines_are_records_whatever_they_hold() {
        let found = all("{\"a\":1}\n\n  {broken\r\n{\"b\":2}", 4).unwrap();
        assert_eq!(
            found.iter().map(|f| f.1.as_str()).collect::<Vec<_>>(),
            ["{\"a\":1}", "{broken", "{\"b\":2}"]
        );
        assert_eq!(found.iter().map(|f| f.0.line).collect::<Vec<_>>(), [1, 3, 4]);
    }

    #[test]
    fn nothing_gives_no_record() {
        assert!(all("", 8).unwrap().is_empty());
        assert!(all(" \n", 8).unwrap().is_empty());
        assert!(all(" [ ] ", 8).unwrap().is_empty());
    }

    #[test]
    fn a_wrong_layout_names_its_line() {
        for (text, expected) in [
            ("\n7", "2: found `7`, expected `[`"),
            ("[{}\n{}]", "2: found `{`, expected `,` or `]`"),
            ("[{},]", "1: found `]`, expected `{`"),
            ("[{}]\n\nx", "3: found `x`, expected the end"),
            ("[\n{\"a\": \n", "3: the file ends inside the sample that starts at line 2"),
            ("[{},", "1: the file ends before the closing `]`"),
            ("[{}, 3]", "1: found `3`, expected `{`"),
        ] {
            let error = all(text, 2).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_serde_writes_comes_back(
            values in prop::collection::vec(any::<String>(), 0..8), pretty: bool, capacity in 1usize..40,
        ) {
            let objects: Vec<_> = values.iter().map(|v| serde_json::json!({ "v": v, "n": { "k": [v] } })).collect();
            let array = if pretty {
                serde_json::to_string_pretty(&objects).unwrap()
            } else {
                serde_json::to_string(&objects).unwrap()
            };
            let lines: String = objects.iter().map(|o| format!("{o}\n")).collect();
            for text in [array, lines] {
                let found = all(&text, capacity).unwrap();
                prop_assert_eq!(found.len(), objects.len());
                for ((span, record), object) in found.iter().zip(&objects) {
                    prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(record).unwrap(), object);
                    let (offset, line) = (span.offset as usize, span.line as usize);
                    prop_assert_eq!(&text[offset..offset + record.len()], record);
                    prop_assert_eq!(text[..offset].matches('\n').count() + 1, line);
                }
            }
        }
    }
}
