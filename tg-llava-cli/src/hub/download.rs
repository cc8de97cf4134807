//! One file, from the hub into the cache.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::client::{Attempts, Client, RemoteFile};
use super::{HubError, ModelName};
use crate::console::Console;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Brings files of one model into its folder of the cache.
pub(super) struct Downloads<'a> {
    pub client: &'a Client<'a>,
    pub model: &'a ModelName,
    /// The model's folder.
    pub repository: PathBuf,
    /// The folder of what is locked.
    pub locks: PathBuf,
    pub console: &'a Console,
}

impl Downloads<'_> {
    /// Where a file's contents are kept.
    pub fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.repository.join("blobs").join(&file.etag)
    }

    /// Brings a file's contents, or the rest of them where some are there; `report` is told how many are.
    ///
    /// # Errors
    /// Where they cannot be had or kept, or are not what the hub says. What came is kept, unless it is wrong.
    pub fn bring(&self, file: &RemoteFile, report: &mut dyn FnMut(u64)) -> Result<(), HubError> {
        let blob = self.blob(file);
        // Another process may be at it, or have ended meanwhile.
        let _lock = if blob.exists() { None } else { self.lock(file)? };
        if blob.exists() {
            report(file.size.unwrap_or_default());
            return Ok(());
        }
        let blobs = self.repository.join("blobs");
        std::fs::create_dir_all(&blobs).map_err(HubError::io(&blobs))?;
        let part = blob.with_file_name(format!("{}.incomplete", file.etag));
        let mut out =
            OpenOptions::new().create(true).append(true).open(&part).map_err(HubError::io(&part))?;
        let mut attempts = Attempts::default();
        loop {
            let before = out.metadata().map_err(HubError::io(&part))?.len();
            if file.size.is_some_and(|size| before > size) {
                out.set_len(0).map_err(HubError::io(&part))?;
                continue;
            }
            report(before);
            if file.size == Some(before) {
                break;
            }
            let result = self.receive(file, before, (&mut out, &part), report);
            let after = out.metadata().map_err(HubError::io(&part))?.len();
            match result {
                Ok(()) if file.size.is_none_or(|size| size == after) => break,
                Ok(()) if after > before => attempts.succeeded(),
                Ok(()) => attempts.after(cut(file))?,
                Err(error) => {
                    if after > before {
                        attempts.succeeded();
                    }
                    attempts.after(error)?;
                }
            }
        }
        drop(out);
        self.verify(file, &part)?;
        std::fs::rename(&part, &blob).map_err(HubError::io(&blob))
    }

    /// Appends what comes from byte `have` on.
    fn receive(
        &self,
        file: &RemoteFile,
        mut have: u64,
        (out, part): (&mut File, &Path),
        report: &mut dyn FnMut(u64),
    ) -> Result<(), HubError> {
        let network =
            |source: std::io::Error| HubError::Network { url: file.url.clone(), source: source.into() };
        let mut response = match self.client.open(self.model, file, have) {
            // There is no such byte: what is here is another file, or all of it where nobody said how long it is.
            Err(HubError::Status { status: 416, .. }) => {
                out.set_len(0).map_err(HubError::io(part))?;
                have = 0;
                self.client.open(self.model, file, have)?
            }
            response => response?,
        };
        match response.status().as_u16() {
            206 => {}
            // All of it, whatever was asked for.
            200 => {
                out.set_len(0).map_err(HubError::io(part))?;
                have = 0;
            }
            status => return Err(HubError::Status { url: file.url.clone(), status }),
        }
        let mut reader = response.body_mut().as_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = reader.read(&mut chunk).map_err(network)?;
            if count == 0 {
                return Ok(());
            }
            out.write_all(&chunk[..count]).map_err(HubError::io(part))?;
            have += count as u64;
            report(have);
        }
    }

    /// Compares a large file with its checksum, and removes it where it is another; small ones have none.
    fn verify(&self, file: &RemoteFile, part: &Path) -> Result<(), HubError> {
        if file.etag.len() != 64 || !file.etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(());
        }
        let found = sha256(part).map_err(HubError::io(part))?;
        if found.eq_ignore_ascii_case(&file.etag) {
            return Ok(());
        }
        std::fs::remove_file(part).map_err(HubError::io(part))?;
        let (model, expected) = (self.model.clone(), file.etag.clone());
        Err(HubError::Checksum { model, file: file.name.clone(), expected, found })
    }

    /// Waits until no other process brings this file, Python's tools included; `None` where the file system knows no locks.
    fn lock(&self, file: &RemoteFile) -> Result<Option<File>, HubError> {
        let path = self.locks.join(format!("{}.lock", file.etag));
        std::fs::create_dir_all(&self.locks).map_err(HubError::io(&self.locks))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(HubError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => {
                self.console.note(format_args!("waiting for another process that fetches {}", file.name));
                lock.lock().map_err(HubError::io(&path))?;
                Ok(Some(lock))
            }
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }
}

fn cut(file: &RemoteFile) -> HubError {
    let early = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file ended too early");
    HubError::Network { url: file.url.clone(), source: early.into() }
}

/// In hexadecimal digits.
fn sha256(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            count => hash.update(&chunk[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
