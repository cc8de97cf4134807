//! A judge that repeats what one said before.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use anyhow::{Context, Error, anyhow};
use serde_json::Value;
use tg_llava_benchmarks::judge::{Ask, Judge, JudgedRows};

use crate::failure::Failure;

/// A reply, and what is known of its request.
#[derive(Debug)]
struct Record {
    number: usize,
    user: Option<String>,
    temperature: Option<f64>,
    max_tokens: Option<u64>,
    reply: String,
}

/// Replies of a judge that is not there any more. Those that tell their row and try are found by these; all others are taken in their
/// order.
pub struct Recorded<'a> {
    file: String,
    rows: &'a dyn JudgedRows,
    by_row: HashMap<(String, usize), Record>,
    in_order: VecDeque<Record>,
    failed: Option<Error>,
}

impl<'a> Recorded<'a> {
    /// Reads replies about `rows`: a list of texts, or JSON lines with `reply` and the request, as a judge's replies are kept
    /// (`request`) or with its parts beside the reply (`prompt`, `temperature`, `max_tokens`).
    ///
    /// # Errors
    /// [`Failure::Input`] where the file cannot be used.
    pub fn open(path: &Path, rows: &'a dyn JudgedRows) -> Result<Self, Failure> {
        let file = format!("--judge-replies {}", path.display());
        let named = |error: Error| Failure::Input(error.context(file.clone()));
        let text = std::fs::read_to_string(path).map_err(|e| named(e.into()))?;
        let lines: Vec<Value> = if text.trim_start().starts_with('[') {
            serde_json::from_str(&text).map_err(|e| named(e.into()))?
        } else {
            tg_llava_benchmarks::llava::read_lines(&text, "").map_err(|e| named(e.into()))?
        };
        let (mut by_row, mut in_order) = (HashMap::new(), VecDeque::new());
        for (line, number) in lines.iter().zip(1..) {
            let reply = line.as_str().or(line["reply"].as_str());
            let reply = reply.ok_or_else(|| named(anyhow!("reply {number}: no text, and no `reply`")))?;
            let request = if line["request"].is_object() { &line["request"] } else { line };
            let last = request["messages"].as_array().and_then(|messages| messages.last());
            let user = request["prompt"].as_str().or_else(|| last?["content"].as_str());
            let record = Record {
                number,
                user: user.map(str::to_owned),
                temperature: request["temperature"].as_f64(),
                max_tokens: request["max_tokens"].as_u64(),
                reply: reply.to_owned(),
            };
            match (line["index"].as_str(), line["tried"].as_u64()) {
                (Some(index), Some(tried)) => {
                    rows.value(index, "question").ok_or_else(|| {
                        named(anyhow!(
                            "reply {number} is about index {index}, which the data set does not have"
                        ))
                    })?;
                    by_row.insert((index.to_owned(), tried as usize), record);
                }
                _ => in_order.push_back(record),
            }
        }
        Ok(Self { file, rows, by_row, in_order, failed: None })
    }

    /// Fails where a reply was missing, was to something else, or was not asked for.
    ///
    /// # Errors
    /// [`Failure::Input`] that says so.
    pub fn finish(self) -> Result<(), Failure> {
        let left = self.in_order.len() + self.by_row.len();
        let failed = self.failed.or_else(|| {
            (left > 0)
                .then(|| anyhow!("{left} replies more than are asked for; are they about other answers?"))
        });
        failed.map_or(Ok(()), |error| Err(Failure::Input(error.context(self.file))))
    }

    fn find(&mut self, ask: &Ask<'_>) -> Result<String, Error> {
        let record =
            self.by_row.remove(&(ask.index.to_owned(), ask.tried)).or_else(|| self.in_order.pop_front());
        let Record { number, user, temperature, max_tokens, reply } =
            record.with_context(|| format!("no reply about index {}, try {}", ask.index, ask.tried + 1))?;
        let answer = self.rows.value(ask.index, "prediction").unwrap_or_default();
        let other = user.is_some_and(|user| !user.contains(&answer))
            || temperature.is_some_and(|value| value != ask.temperature)
            || max_tokens.is_some_and(|value| value != ask.max_tokens as u64);
        match other {
            true => Err(anyhow!("reply {number} is to another request than that about index {}", ask.index)),
            false => Ok(reply),
        }
    }
}

impl Judge for Recorded<'_> {
    fn reply(&mut self, ask: &Ask<'_>) -> Option<String> {
        if self.failed.is_some() {
            return None;
        }
        self.find(ask).map_err(|error| self.failed = Some(error)).ok()
    }
}
