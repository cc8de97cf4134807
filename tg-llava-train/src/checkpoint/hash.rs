use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use super::{CheckpointError, Result};
use crate::parallel::watch::Progress;

/// Bytes read from a file at once.
const CHUNK: usize = 1 << 20;

/// XXH3-128 of `bytes` in hex, as `xxhsum -H2` prints it. It tells damage and differences, not forgery.
pub fn hash_bytes(bytes: &[u8]) -> String {
    hex(xxh3_128(bytes))
}

/// [`hash_bytes`] of a whole file, a chunk at a time; for entries of a fingerprint.
///
/// # Errors
/// Where the file cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let hashed = File::open(path).and_then(|mut file| hash_reader(&mut file));
    hashed.map(|hashed| hashed.hash).map_err(|e| CheckpointError::io(path, e))
}

/// Length and hash of what was read.
pub(super) struct Hashed {
    pub(super) bytes: u64,
    pub(super) hash: String,
}

pub(super) fn hash_reader(reader: &mut impl Read) -> io::Result<Hashed> {
    let mut reader = HashingReader::new(reader);
    let bytes = io::copy(&mut BufReader::with_capacity(CHUNK, &mut reader), &mut io::sink())?;
    Ok(Hashed { bytes, hash: reader.digest() })
}

/// Hashes what is read through it.
pub struct HashingReader<R> {
    reader: R,
    hasher: Xxh3Default,
}

impl<R: Read> HashingReader<R> {
    /// Nothing is read yet.
    pub fn new(reader: R) -> Self {
        Self { reader, hasher: Xxh3Default::new() }
    }

    /// [`hash_bytes`] of all that was read.
    pub fn digest(&self) -> String {
        hex(self.hasher.digest128())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        // Terabytes take longer than a rank may go without a sign of life.
        Progress::of_process().tick();
        Ok(count)
    }
}

/// Whether `text` is such a hash.
pub(super) fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first value is in the reference implementation's documentation.
    #[test]
    fn values_of_the_reference_implementation() {
        assert_eq!(hash_bytes(b""), "99aa06d3014798d86001c324468d497f");
        let long: Vec<u8> = (0..3 * CHUNK + 17).map(|at| ((at * 31) >> 3) as u8).collect();
        let hashed = hash_reader(&mut long.as_slice()).unwrap();
        assert_eq!((hashed.bytes, hashed.hash), (long.len() as u64, hash_bytes(&long)));
    }
}
