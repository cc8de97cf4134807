//! A judge for answers that rules cannot read or compare: a server, or replies that were recorded.

mod recorded;
mod replies;
mod server;

use std::path::{Path, PathBuf};

use anyhow::{Error, anyhow};
use clap::Args;
use tg_llava_benchmarks::judge::{Judge, JudgePrompt, JudgePrompts, JudgeTask, JudgedRows};

use self::recorded::Recorded;
use self::replies::Replies;
use self::server::{Asked, Round, Server};
use super::scoring::ScoringError;
use crate::args::at_least_one;
use crate::console::Console;
use crate::failure::Failure;

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
    /// Requests to the judge at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub judge_jobs: usize,
    /// File that keeps replies, which are not asked for again [default: judge.jsonl beside the answers]; without --judge-url
    /// its replies are all that there is
    #[arg(long, value_name = "FILE")]
    pub judge_replies: Option<PathBuf>,
}

/// What is judged.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The rows.
    pub rows: &'a dyn JudgedRows,
    /// What is asked for.
    pub task: JudgeTask,
}

/// Scores with the judge that it is given. It may be called several times, and must ask the same whenever it gets the same replies.
type Score<'a, T> = &'a mut dyn FnMut(Option<&mut dyn Judge>) -> Result<T, ScoringError>;

impl JudgeArgs {
    /// Whether there is a judge.
    pub fn is_asked(&self) -> bool {
        self.judge_url.is_some() || self.judge_replies.is_some()
    }

    /// What `score` gives, with the judge where there is one. Its replies are kept in `beside` unless the arguments name a file.
    ///
    /// # Errors
    /// Those of `score`, [`Failure::Input`] where a file cannot be used, and [`Failure::Run`] where the judge does not reply.
    pub fn judged<T>(
        &self,
        about: About<'_>,
        beside: &Path,
        console: &Console,
        score: Score<'_, T>,
    ) -> Result<T, ScoringError> {
        let (Some(url), Some(model), Some(file)) = (&self.judge_url, &self.judge_model, &self.judge_prompts)
        else {
            return match &self.judge_replies {
                None => score(None),
                Some(path) => {
                    let mut recorded = Recorded::open(path, about.rows)?;
                    let scored = score(Some(&mut recorded))?;
                    recorded.finish()?;
                    Ok(scored)
                }
            };
        };
        let server = Server::new(url, model, &self.judge_key_env, prompt(file, about.task)?);
        let path = self.judge_replies.clone().unwrap_or_else(|| beside.join("judge.jsonl"));
        let mut replies = Replies::open(&path)?;
        // What is asked next may depend on a reply. So each round asks all that can be asked, at once, until nothing is left.
        loop {
            let mut round = Round::new(&server, &replies, about.rows);
            let scored = score(Some(&mut round))?;
            let Asked { open, shared } = round.finish()?;
            if open.is_empty() {
                // So that each row's replies are there when the file serves without the judge.
                for reply in shared {
                    replies.keep(reply).map_err(Failure::Run)?;
                }
                return Ok(scored);
            }
            server.ask(open, self.judge_jobs, &mut replies, console)?;
        }
    }
}

/// What the judge is asked, by the file that the user names.
fn prompt(file: &Path, task: JudgeTask) -> Result<JudgePrompt, Failure> {
    let named = |error: Error| Failure::Input(error.context(format!("--judge-prompts {}", file.display())));
    let text = std::fs::read_to_string(file).map_err(|e| named(e.into()))?;
    let prompts: JudgePrompts = serde_json::from_str(&text).map_err(|e| named(e.into()))?;
    let missing = || named(anyhow!("no `{}`, which says what is asked about this data set", task.name()));
    prompts.of(task).cloned().ok_or_else(missing)
}
