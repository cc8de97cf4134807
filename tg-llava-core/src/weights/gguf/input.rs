use std::fs::File;
use std::io::{BufReader, Read};

/// What is wrong with a file, in words.
pub(super) type Parsed<T> = Result<T, String>;

/// Bytes of a file in order, with what is left of it: no length that the file states is believed before.
pub(super) struct Input {
    file: BufReader<File>,
    left: u64,
    size: u64,
}

impl Input {
    pub fn new(file: File) -> std::io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(1 << 16, file), left: size, size })
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes before the next one.
    pub fn position(&self) -> u64 {
        self.size - self.left
    }

    fn claim(&mut self, count: u64) -> Parsed<()> {
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            format!(
                "the file is cut, or not a GGUF file: {count} bytes are to follow, {} are left",
                self.left
            )
        })?;
        Ok(())
    }

    pub fn bytes<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.claim(N as u64)?;
        let mut raw = [0; N];
        self.file.read_exact(&mut raw).map_err(|error| error.to_string())?;
        Ok(raw)
    }

    pub fn u32(&mut self) -> Parsed<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Parsed<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A text, which stands behind its length.
    pub fn text(&mut self) -> Parsed<String> {
        let len = self.u64()?;
        self.claim(len)?;
        let mut raw = Vec::new();
        let read = (&mut self.file).take(len).read_to_end(&mut raw).map_err(|error| error.to_string())?;
        match read as u64 == len {
            true => Ok(String::from_utf8_lossy(&raw).into_owned()),
            false => Err("the file became shorter while it was read".into()),
        }
    }

    pub fn skip(&mut self, count: u64) -> Parsed<()> {
        self.claim(count)?;
        // What a file has left is below its size, which fits.
        self.file.seek_relative(count as i64).map_err(|error| error.to_string())
    }
}
