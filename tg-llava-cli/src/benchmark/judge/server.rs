//! A judge behind a URL.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Error, anyhow, bail};
use serde_json::{Value, json};
use tg_llava_benchmarks::judge::{Ask, Judge, JudgePrompt, JudgedRows};

use super::replies::{Replies, Reply, key};
use crate::console::Console;
use crate::failure::Failure;
use crate::progress::Progress;

/// How long a judge may take to reply.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long to wait before another attempt, after a server that is busy or was not reached.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// A judge that is asked over HTTP.
pub struct Server {
    prompt: JudgePrompt,
    url: String,
    model: String,
    key: Option<String>,
    agent: ureq::Agent,
}

/// A request that nobody has replied to yet.
#[derive(Debug)]
pub struct Open {
    index: String,
    tried: usize,
    body: Value,
}

impl Server {
    /// The judge `model` at `url`, which is asked by `prompt` with the key in the environment variable `key`.
    pub fn new(url: &str, model: &str, key: &str, prompt: JudgePrompt) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .user_agent(concat!("tg-llava-cli/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            prompt,
            url: format!("{}/chat/completions", url.trim_end_matches('/')),
            model: model.to_owned(),
            key: std::env::var(key).ok().filter(|key| !key.is_empty()),
            agent: config.new_agent(),
        }
    }

    fn body(&self, ask: &Ask<'_>, rows: &dyn JudgedRows) -> Option<Value> {
        let request = self.prompt.request(ask, rows)?;
        let system = request.system.map(|system| json!({ "role": "system", "content": system }));
        let user = json!({ "role": "user", "content": request.user });
        Some(json!({
            "model": self.model,
            "messages": system.into_iter().chain([user]).collect::<Vec<_>>(),
            "temperature": ask.temperature,
            "max_tokens": ask.max_tokens,
        }))
    }

    /// Sends all requests, `jobs` at once, and keeps each reply as it comes.
    ///
    /// # Errors
    /// [`Failure::Run`] with the first request that fails; those on the way still count.
    pub fn ask(
        &self,
        open: Vec<Open>,
        jobs: usize,
        replies: &mut Replies,
        console: &Console,
    ) -> Result<(), Failure> {
        let bar = Progress::items(console, "judging", "replies", open.len());
        let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut failed: Option<Error> = None;
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            for _ in 0..jobs.min(open.len()) {
                let (sender, open, next, over) = (sender.clone(), &open, &next, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed)
                        && let Some(request) = open.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let reply = self.post(&request.body.to_string());
                        if sender.send((request, reply)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (request, reply) in receiver {
                let Open { index, tried, body } = request;
                let kept = reply.and_then(|reply| {
                    let (index, request) = (Some(index.clone()), body.clone());
                    replies.keep(Reply { index, tried: *tried, request, reply })
                });
                if let Err(error) = kept {
                    over.store(true, Ordering::Relaxed);
                    failed.get_or_insert(error.context(format!("index {index}")));
                }
                bar.advance(1);
            }
        });
        drop(bar);
        failed.map_or(Ok(()), |error| {
            Err(Failure::Run(error.context("the judge; replies so far are kept, try again")))
        })
    }

    /// Sends a request, again where that may help.
    fn post(&self, body: &str) -> Result<String, Error> {
        let mut pauses = PAUSES.iter();
        loop {
            let (error, may_help) = match self.send(body) {
                Ok((200, text)) => return content(&text).with_context(|| format!("{}: {text}", self.url)),
                Ok((status, text)) => {
                    (anyhow!("{} answered {status}: {text}", self.url), status == 429 || status >= 500)
                }
                Err(error) => (anyhow!("{}: {error}", self.url), true),
            };
            match pauses.next().filter(|_| may_help) {
                Some(pause) => std::thread::sleep(*pause),
                None => return Err(error),
            }
        }
    }

    fn send(&self, body: &str) -> Result<(u16, String), ureq::Error> {
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = request.send(body)?;
        let status = response.status().as_u16();
        Ok((status, response.body_mut().read_to_string()?))
    }
}

/// What a completion says.
fn content(text: &str) -> Result<String, Error> {
    let value: Value = serde_json::from_str(text).context("the reply is no JSON")?;
    match &value["choices"][0]["message"]["content"] {
        Value::String(content) => Ok(content.clone()),
        _ => bail!("the reply has no choices[0].message.content"),
    }
}

/// What a round asked.
#[derive(Debug, Default)]
pub struct Asked {
    /// The requests that have no reply, each once.
    pub open: Vec<Open>,
    /// Replies that are known from other rows with the same request, and that no line about their own row has.
    pub shared: Vec<Reply>,
}

/// A judge that knows the replies that are kept, and notes what else it is asked.
pub struct Round<'a> {
    server: &'a Server,
    replies: &'a Replies,
    rows: &'a dyn JudgedRows,
    asked: Asked,
    seen: HashSet<String>,
    unknown: Option<String>,
}

impl<'a> Round<'a> {
    /// A round of questions to `server` about `rows`.
    pub fn new(server: &'a Server, replies: &'a Replies, rows: &'a dyn JudgedRows) -> Self {
        Self { server, replies, rows, asked: Asked::default(), seen: HashSet::new(), unknown: None }
    }

    /// What was asked.
    ///
    /// # Errors
    /// [`Failure::Run`] where a row is not known.
    pub fn finish(self) -> Result<Asked, Failure> {
        match self.unknown {
            Some(index) => Err(Failure::Run(anyhow!("no row to judge has the index {index}"))),
            None => Ok(self.asked),
        }
    }
}

impl Judge for Round<'_> {
    fn reply(&mut self, ask: &Ask<'_>) -> Option<String> {
        let Some(body) = self.server.body(ask, self.rows) else {
            self.unknown.get_or_insert(ask.index.to_owned());
            return None;
        };
        if let Some(reply) = self.replies.to(ask.tried, &body) {
            let (index, reply) = (ask.index.to_owned(), reply.to_owned());
            if !self.replies.has(&index, ask.tried, &body)
                && self.seen.insert(format!("{index}\n{}", key(ask.tried, &body)))
            {
                let (index, reply) = (Some(index), reply.clone());
                self.asked.shared.push(Reply { index, tried: ask.tried, request: body, reply });
            }
            return Some(reply);
        }
        if self.seen.insert(key(ask.tried, &body)) {
            self.asked.open.push(Open { index: ask.index.to_owned(), tried: ask.tried, body });
        }
        None
    }
}
