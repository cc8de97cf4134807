//! Replies that are kept.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::benchmark::lines::LineFile;
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
    file: LineFile,
    known: HashMap<String, Known>,
}

/// What a judge said, and the rows that the file has a line about.
#[derive(Debug)]
struct Known {
    reply: String,
    rows: HashSet<Option<String>>,
}

impl Replies {
    /// Opens a file, or begins it.
    ///
    /// # Errors
    /// [`Failure::Input`] where it cannot be read or written, another run has it, or it holds something else.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let (file, replies) = LineFile::open(path, "reply of a judge with its `request`")?;
        let mut all = Self { file, known: HashMap::new() };
        replies.into_iter().for_each(|reply| all.know(reply));
        Ok(all)
    }

    /// The reply to a request, if there was one.
    pub fn to(&self, tried: usize, request: &Value) -> Option<&str> {
        self.known.get(&key(tried, request)).map(|known| known.reply.as_str())
    }

    /// Whether a line about the row, or about none, has the request.
    pub fn has(&self, index: &str, tried: usize, request: &Value) -> bool {
        let known = self.known.get(&key(tried, request));
        known.is_some_and(|known| known.rows.iter().any(|row| row.as_deref().is_none_or(|row| row == index)))
    }

    /// Adds one.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(&mut self, reply: Reply) -> Result<(), Error> {
        self.file.write(&reply)?;
        self.know(reply);
        Ok(())
    }

    fn know(&mut self, Reply { index, tried, request, reply }: Reply) {
        let known = Known { reply: reply.clone(), rows: HashSet::new() };
        let known = self.known.entry(key(tried, &request)).or_insert(known);
        known.reply = reply;
        known.rows.insert(index);
    }
}

/// What tells a request from all others.
pub fn key(tried: usize, request: &Value) -> String {
    format!("{tried} {request}")
}
