//! Replies that are kept.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;

/// A request and what came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The row that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// Which try it was, from 0.
    pub tried: usize,
    /// What was sent.
    pub request: Value,
    /// What the judge said.
    pub reply: String,
}

/// A file of replies.
#[derive(Debug)]
pub struct Replies {
    path: PathBuf,
    file: File,
    known: HashMap<String, String>,
}

impl Replies {
    /// Opens a file, or begins it.
    ///
    /// # Errors
    /// [`Failure::Input`] where it cannot be read or written, or holds something else.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let named = |error: Error| Failure::Input(error.context(path.display().to_string()));
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| named(e.into()))?;
        let text = std::fs::read_to_string(path).map_err(|e| named(e.into()))?;
        // What a kill left of a last line is asked again.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(|e| named(e.into()))?;
        let mut known = HashMap::new();
        for (at, line) in text[..whole].lines().enumerate() {
            let parsed = serde_json::from_str(line).with_context(|| format!("line {}", at + 1));
            let Reply { tried, request, reply, .. } = parsed.map_err(named)?;
            known.insert(key(tried, &request), reply);
        }
        Ok(Self { path: path.to_path_buf(), file, known })
    }

    /// The reply to a request, if there was one.
    pub fn to(&self, tried: usize, request: &Value) -> Option<&str> {
        self.known.get(&key(tried, request)).map(String::as_str)
    }

    /// Adds one.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(&mut self, reply: Reply) -> Result<(), Error> {
        let line = serde_json::to_string(&reply)? + "\n";
        self.file.write_all(line.as_bytes()).with_context(|| self.path.display().to_string())?;
        self.known.insert(key(reply.tried, &reply.request), reply.reply);
        Ok(())
    }
}

/// What tells a request from all others.
pub fn key(tried: usize, request: &Value) -> String {
    format!("{tried} {request}")
}
