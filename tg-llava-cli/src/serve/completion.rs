//! One request from the model's events to what the client reads: whole, or piece by piece.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tg_llava_core::generate::FinishReason;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep_until;

use super::Phase;
use super::api::{ApiError, Choice, Completion, Delta, TokenLogprob, Usage};
use super::intake::Intake;
use super::metrics::Metrics;
use super::model::{Command, ModelEvent, Trouble};

/// How an answer is written.
#[derive(Debug, Clone)]
pub struct Form {
    /// `chatcmpl-…`.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's served name.
    pub model: String,
    /// Program, device and number format.
    pub fingerprint: String,
    /// Number of answers.
    pub choices: usize,
    /// Whether tokens come with log-probabilities.
    pub logprobs: bool,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
}

/// A request that the model has. Dropping it, as the server does when its client goes away, takes it back.
pub struct Pending {
    /// Its number for the model.
    pub number: u64,
    /// The model.
    pub model: Sender<Command>,
    /// What the model says.
    pub events: UnboundedReceiver<Result<ModelEvent, Trouble>>,
    /// Place among the requests that are taken at once.
    #[expect(dead_code, reason = "it is given back by being dropped")]
    pub ticket: Arc<OwnedSemaphorePermit>,
    /// Whether the server is about to end.
    pub phase: watch::Receiver<Phase>,
    /// When it came.
    pub start: Instant,
    /// When it must be over.
    pub deadline: Instant,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Where it is logged.
    pub span: tracing::Span,
}

impl Pending {
    /// What the model says next.
    async fn next(&mut self) -> Result<ModelEvent, ApiError> {
        let stopping = self.phase.wait_for(|phase| *phase == Phase::Stopping);
        tokio::select! {
            biased;
            event = self.events.recv() => match event {
                Some(Ok(event)) => Ok(event),
                Some(Err(Trouble::Refused(reason))) => {
                    Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", reason))
                }
                Some(Err(Trouble::Broken(details))) => Err(self.span.in_scope(|| ApiError::internal(details))),
                None => Err(self.span.in_scope(|| ApiError::internal("the model's thread has ended"))),
            },
            _ = stopping => Err(ApiError::shutting_down()),
            () = sleep_until(self.deadline.into()) => Err(ApiError::timeout()),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let _ = self.model.send(Command::Cancel(self.number));
    }
}

/// Something new of an answer.
struct Piece {
    index: usize,
    text: String,
    logprobs: Option<Vec<TokenLogprob>>,
    finish: Option<&'static str>,
}

/// Answers while they grow.
pub struct Answering {
    pending: Pending,
    intake: Arc<Intake>,
    form: Form,
    /// Tokens whose text is not certain yet, by answer.
    held: Vec<Vec<(i64, TokenLogprob)>>,
    unfinished: usize,
    prompt_tokens: usize,
    completion_tokens: usize,
}

impl Answering {
    /// Nothing said yet.
    pub fn new(pending: Pending, intake: Arc<Intake>, form: Form, prompt_tokens: usize) -> Self {
        let (held, unfinished) = (vec![Vec::new(); form.choices], form.choices);
        Self { pending, intake, form, held, unfinished, prompt_tokens, completion_tokens: 0 }
    }

    /// The whole answer.
    pub async fn whole(mut self) -> Response {
        let mut answers = vec![(String::new(), self.form.logprobs.then(Vec::new), ""); self.form.choices];
        while self.unfinished > 0 {
            match self.next().await {
                Ok(None) => {}
                Ok(Some(piece)) => {
                    let (text, logprobs, finish) = &mut answers[piece.index];
                    text.push_str(&piece.text);
                    if let (Some(all), Some(new)) = (logprobs, piece.logprobs) {
                        all.extend(new);
                    }
                    *finish = piece.finish.unwrap_or(finish);
                }
                Err(error) => return error.into_response(),
            }
        }
        let choice = |(index, (text, logprobs, finish))| Choice::whole(index, text, logprobs, finish);
        let choices = answers.into_iter().enumerate().map(choice).collect();
        let body = self.completion("chat.completion", choices, Some(Some(self.usage())));
        ([(header::CONTENT_TYPE, "application/json")], json(&body)).into_response()
    }

    /// The answer as server-sent events. What goes wrong before the first token has a status of its own.
    pub async fn streamed(mut self) -> Response {
        let first = match self.next().await {
            Ok(first) => first,
            Err(error) => return error.into_response(),
        };
        let mut frames: VecDeque<Bytes> = (0..self.form.choices)
            .map(|index| {
                let delta = Delta { role: Some("assistant"), content: Some(String::new()), refusal: None };
                self.chunk(Choice::new(index, delta, None))
            })
            .collect();
        if let Some(piece) = first {
            self.write(piece, &mut frames);
        }
        let frames = stream::unfold((Some(self), frames), |(mut answering, mut frames)| async move {
            loop {
                if let Some(frame) = frames.pop_front() {
                    return Some((Ok::<_, Infallible>(frame), (answering, frames)));
                }
                let open = answering.as_mut()?;
                if open.unfinished == 0 {
                    frames.extend(open.ending());
                    answering = None;
                    continue;
                }
                match open.next().await {
                    Ok(None) => {}
                    Ok(Some(piece)) => open.write(piece, &mut frames),
                    Err(error) => {
                        frames.push_back(frame(&error.body().to_string()));
                        answering = None;
                    }
                }
            }
        });
        let headers =
            [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
        (headers, Body::from_stream(frames)).into_response()
    }

    /// What the model says next, where it is something to tell.
    async fn next(&mut self) -> Result<Option<Piece>, ApiError> {
        let first = self.completion_tokens == 0;
        match self.pending.next().await? {
            ModelEvent::Token { answer, token, logprobs, text } => {
                self.completion_tokens += 1;
                if first {
                    self.pending.metrics.first_token_seconds.add(self.pending.start.elapsed());
                }
                if let Some(logprobs) = logprobs.filter(|_| !self.intake.is_end(token)) {
                    self.held[answer].push((token, self.intake.token_logprob(token, &logprobs)));
                }
                Ok((!text.is_empty()).then(|| self.piece(answer, text, None)))
            }
            ModelEvent::Finished { answer, reason, text } => {
                self.unfinished -= 1;
                if self.unfinished == 0 {
                    self.log();
                }
                // Tokens of a stop string are no part of the answer.
                if reason == FinishReason::StopString && text.is_empty() {
                    self.held[answer].clear();
                }
                let finish = match reason {
                    FinishReason::EndOfTurn | FinishReason::StopString => "stop",
                    FinishReason::Length => "length",
                };
                Ok(Some(self.piece(answer, text, Some(finish))))
            }
        }
    }

    fn piece(&mut self, index: usize, text: String, finish: Option<&'static str>) -> Piece {
        let held = std::mem::take(&mut self.held[index]);
        let logprobs = self.form.logprobs.then(|| self.intake.in_text(held));
        Piece { index, text, logprobs, finish }
    }

    /// Writes what is new: its text, and then its end.
    fn write(&self, piece: Piece, frames: &mut VecDeque<Bytes>) {
        let Piece { index, text, logprobs, finish } = piece;
        if !text.is_empty() || logprobs.as_ref().is_some_and(|tokens| !tokens.is_empty()) {
            let delta = Delta { content: Some(text), ..Delta::default() };
            frames.push_back(self.chunk(Choice::new(index, delta, logprobs)));
        }
        if finish.is_some() {
            let end = Choice { finish_reason: finish, ..Choice::new(index, Delta::default(), None) };
            frames.push_back(self.chunk(end));
        }
    }

    fn chunk(&self, choice: Choice) -> Bytes {
        let usage = self.form.include_usage.then_some(None);
        frame(&json(&self.completion("chat.completion.chunk", vec![choice], usage)))
    }

    fn ending(&self) -> Vec<Bytes> {
        let usage = || json(&self.completion("chat.completion.chunk", Vec::new(), Some(Some(self.usage()))));
        let usage = self.form.include_usage.then(|| frame(&usage()));
        usage.into_iter().chain([frame("[DONE]")]).collect()
    }

    fn completion(
        &self,
        object: &'static str,
        choices: Vec<Choice>,
        usage: Option<Option<Usage>>,
    ) -> Completion<'_> {
        let Form { id, created, model, fingerprint, .. } = &self.form;
        Completion { id, object, created: *created, model, system_fingerprint: fingerprint, choices, usage }
    }

    fn usage(&self) -> Usage {
        Usage::new(self.prompt_tokens, self.completion_tokens)
    }

    fn log(&self) {
        let elapsed = self.pending.start.elapsed();
        self.pending.metrics.request_seconds.add(elapsed);
        let (prompt_tokens, completion_tokens) = (self.prompt_tokens, self.completion_tokens);
        let seconds = elapsed.as_secs_f64();
        self.pending.span.in_scope(|| tracing::info!(prompt_tokens, completion_tokens, seconds, "answered"));
    }
}

fn frame(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}

/// JSON of what is made of texts, lists and finite numbers, which cannot fail.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
