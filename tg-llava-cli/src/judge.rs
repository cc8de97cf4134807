//! A judge behind a URL, for answers that rules cannot read or compare.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, anyhow, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tg_llava_benchmarks::dataset::Kind;
use tg_llava_benchmarks::judge::{Ask, Judge, JudgePrompt, JudgePrompts};
use tg_llava_benchmarks::report::{Outcome, score};
use tg_llava_benchmarks::score::Predictions;
use tg_llava_benchmarks::score::option::Rules;
use tg_llava_benchmarks::table::Table;

use crate::failure::Failure;

/// How long a judge may take to reply.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long to wait before another attempt, after a server that is busy or was not reached.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Another model that judges answers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Judge")]
pub struct JudgeArgs {
    /// OpenAI-compatible server that judges answers which rules cannot, such as http://localhost:8000/v1
    #[arg(long, value_name = "URL", requires_all = ["judge_model", "judge_prompts"])]
    pub judge_url: Option<String>,
    /// The judge's name there
    #[arg(long, value_name = "NAME", requires = "judge_url")]
    pub judge_model: Option<String>,
    /// What the judge is asked, by kind of data set, as JSON (docs/evaluation.md)
    #[arg(long, value_name = "FILE", requires = "judge_url")]
    pub judge_prompts: Option<PathBuf>,
    /// Environment variable that holds the key for it, where it wants one
    #[arg(long, value_name = "VARIABLE", default_value = "OPENAI_API_KEY")]
    pub judge_key_env: String,
    /// File that keeps replies, which are not asked for again [default: judge.jsonl beside the answers]
    #[arg(long, value_name = "FILE", requires = "judge_url")]
    pub judge_replies: Option<PathBuf>,
}

/// What is scored.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    /// The data set.
    pub table: &'a Table,
    /// What it asks for.
    pub kind: Kind,
    /// The answers.
    pub predictions: &'a Predictions,
}

impl JudgeArgs {
    /// Scores answers, with the judge where there is one. Its replies are kept in `beside` unless the arguments name a file.
    ///
    /// # Errors
    /// [`Failure::Input`] where the data set or a file cannot be used, [`Failure::Run`] where the judge does not reply.
    pub fn score(&self, scored: Scored<'_>, rules: Rules, beside: &Path) -> Result<Outcome, Failure> {
        let Scored { table, kind, predictions } = scored;
        let mut judge = self.open(scored, beside)?;
        let asked = judge.as_mut().map(|judge| judge as &mut dyn Judge);
        let outcome = score(table, kind, predictions, rules, asked).map_err(|e| Failure::Input(e.into()))?;
        match judge.and_then(|judge| judge.failed) {
            Some(error) => Err(Failure::Run(error.context("the judge; replies so far are kept, try again"))),
            None => Ok(outcome),
        }
    }

    /// The judge; `None` without one, and for data sets that need none.
    fn open<'a>(&self, scored: Scored<'a>, beside: &Path) -> Result<Option<UrlJudge<'a>>, Failure> {
        let (Some(url), Some(model), Some(file)) = (&self.judge_url, &self.judge_model, &self.judge_prompts)
        else {
            return Ok(None);
        };
        let named =
            |error: Error| Failure::Input(error.context(format!("--judge-prompts {}", file.display())));
        let text = std::fs::read_to_string(file).map_err(|e| named(e.into()))?;
        let prompts: JudgePrompts = serde_json::from_str(&text).map_err(|e| named(e.into()))?;
        let Some((name, prompt)) = prompts.of(scored.kind) else { return Ok(None) };
        let prompt = prompt
            .ok_or_else(|| named(anyhow!("no `{name}`, which says what is asked about this data set")))?
            .clone();
        let replies = self.judge_replies.clone().unwrap_or_else(|| beside.join("judge.jsonl"));
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .user_agent(concat!("tg-llava-cli/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Some(UrlJudge {
            scored,
            prompt,
            url: format!("{}/chat/completions", url.trim_end_matches('/')),
            model: model.clone(),
            key: std::env::var(&self.judge_key_env).ok().filter(|key| !key.is_empty()),
            agent: config.new_agent(),
            replies: Replies::open(&replies)?,
            failed: None,
        }))
    }
}

/// A judge that is asked over HTTP.
struct UrlJudge<'a> {
    scored: Scored<'a>,
    prompt: JudgePrompt,
    url: String,
    model: String,
    key: Option<String>,
    agent: ureq::Agent,
    replies: Replies,
    /// Why it is asked no more.
    failed: Option<Error>,
}

impl Judge for UrlJudge<'_> {
    fn reply(&mut self, ask: &Ask<'_>) -> Option<String> {
        if self.failed.is_some() {
            return None;
        }
        let reply = self.known_or_asked(ask).with_context(|| format!("index {}", ask.index));
        reply.map_err(|error| self.failed = Some(error)).ok()
    }
}

impl UrlJudge<'_> {
    fn known_or_asked(&mut self, ask: &Ask<'_>) -> Result<String, Error> {
        let Scored { table, kind, predictions } = self.scored;
        let request = self.prompt.request(ask, table, kind, predictions).context("no row of this index")?;
        let system = request.system.map(|system| json!({ "role": "system", "content": system }));
        let user = json!({ "role": "user", "content": request.user });
        let body = json!({
            "model": self.model,
            "messages": system.into_iter().chain([user]).collect::<Vec<_>>(),
            "temperature": ask.temperature,
            "max_tokens": ask.max_tokens,
        });
        if let Some(known) = self.replies.known.get(&Replies::key(ask.tried, &body)) {
            return Ok(known.clone());
        }
        let reply = self.post(&body.to_string())?;
        self.replies.keep(Reply { tried: ask.tried, request: body, reply: reply.clone() })?;
        Ok(reply)
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

/// A request and what came of it.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    tried: usize,
    request: Value,
    reply: String,
}

/// Replies that are kept.
struct Replies {
    path: PathBuf,
    file: File,
    known: HashMap<String, String>,
}

impl Replies {
    fn open(path: &Path) -> Result<Self, Failure> {
        let named = |error: Error| Failure::Input(error.context(path.display().to_string()));
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| named(e.into()))?;
        let text = std::fs::read_to_string(path).map_err(|e| named(e.into()))?;
        // What a kill left of a last line is asked again.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(|e| named(e.into()))?;
        let mut known = HashMap::new();
        for (at, line) in text[..whole].lines().enumerate() {
            let parsed = serde_json::from_str(line).with_context(|| format!("line {}", at + 1));
            let Reply { tried, request, reply } = parsed.map_err(named)?;
            known.insert(Self::key(tried, &request), reply);
        }
        Ok(Self { path: path.to_path_buf(), file, known })
    }

    fn key(tried: usize, request: &Value) -> String {
        format!("{tried} {request}")
    }

    fn keep(&mut self, reply: Reply) -> Result<(), Error> {
        let line = serde_json::to_string(&reply)? + "\n";
        self.file.write_all(line.as_bytes()).with_context(|| self.path.display().to_string())?;
        self.known.insert(Self::key(reply.tried, &reply.request), reply.reply);
        Ok(())
    }
}
