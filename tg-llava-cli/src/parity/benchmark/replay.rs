//! A judge that repeats recorded replies, and compares what it is asked with what was asked then.

use anyhow::{Context, Result};
use serde_json::Value;
use tg_llava_benchmarks::judge::{Ask, Judge, JudgePrompt, JudgedRows, has_chinese};

use super::super::report::Row;

/// Recorded replies with their requests.
pub struct Replay<'a> {
    replies: std::vec::IntoIter<Value>,
    rows: &'a dyn JudgedRows,
    /// What requests are made from, in the order from their ends.
    names: &'a [&'a str],
    /// Read out of the first request each, and compared with all others.
    plain: Option<JudgePrompt>,
    chinese: Option<JudgePrompt>,
    compared: usize,
    difference: Option<String>,
}

impl<'a> Replay<'a> {
    /// `replies` with `prompt`, `system`, `temperature`, `max_tokens` and `reply`, about `rows`.
    pub fn new(replies: Vec<Value>, rows: &'a dyn JudgedRows, names: &'a [&'a str]) -> Self {
        let replies = replies.into_iter();
        Self { replies, rows, names, plain: None, chinese: None, compared: 0, difference: None }
    }

    /// The comparison of all requests.
    pub fn finish(self) -> Row {
        let left = self.replies.len();
        let missing = (left > 0).then(|| format!("{left} recorded requests are missing"));
        Row::exact("requests to the judge", self.compared, self.difference.or(missing))
    }

    fn answer(&mut self, ask: &Ask<'_>) -> Result<String> {
        let golden = self.replies.next().context("not asked in the recorded run")?;
        self.compared += 1;
        let question = self.rows.value(ask.index, "question").context("no such row")?;
        let template = self.template(ask, &golden);
        let prompt = if has_chinese(&question) { &mut self.chinese } else { &mut self.plain };
        let request = prompt.get_or_insert(template).request(ask, self.rows).context("no such row")?;
        let found = serde_json::json!({
            "prompt": request.user, "system": request.system, "temperature": ask.temperature, "max_tokens": ask.max_tokens,
        });
        for (key, found) in found.as_object().into_iter().flatten() {
            let same =
                found.as_f64().map_or(*found == golden[key], |found| Some(found) == golden[key].as_f64());
            anyhow::ensure!(same, "{key} {found}, recorded {}", golden[key]);
        }
        golden["reply"].as_str().map(str::to_owned).context("no `reply` is recorded")
    }

    /// The text that a request was made from: from its end on, what the row has becomes the names of it.
    fn template(&self, ask: &Ask<'_>, golden: &Value) -> JudgePrompt {
        let mut user = golden["prompt"].as_str().unwrap_or_default().to_owned();
        for name in self.names {
            let Some(value) = self.rows.value(ask.index, name).filter(|value| !value.is_empty()) else {
                continue;
            };
            if let Some(at) = user.rfind(&value) {
                user.replace_range(at..at + value.len(), &format!("{{{name}}}"));
            }
        }
        JudgePrompt { system: golden["system"].as_str().map(str::to_owned), user, chinese: None }
    }
}

impl Judge for Replay<'_> {
    fn reply(&mut self, ask: &Ask<'_>) -> Option<String> {
        match self.answer(ask) {
            Ok(reply) => Some(reply),
            Err(error) => {
                self.difference.get_or_insert_with(|| format!("index {}: {error:#}", ask.index));
                None
            }
        }
    }
}
