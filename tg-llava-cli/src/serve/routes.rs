//! What is answered where.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::api::{ApiError, ChatRequest};
use super::completion::{Answering, Form, Pending};
use super::intake::Work;
use super::model::{Ask, Command};
use super::{App, Phase, Ready, edge};

/// How long that of a refused one may.
const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// All of them.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/chat/completions", post(chat))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), edge::surround))
        .with_state(app)
}

async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("page.html")).into_response()
}

async fn openapi() -> Response {
    as_json(include_str!("openapi.json").replace("VERSION", env!("CARGO_PKG_VERSION")))
}

async fn health(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    app.ready()?;
    Ok(as_json(r#"{"status":"ok"}"#.into()))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.text()).into_response()
}

async fn models(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    app.ready()?;
    Ok(as_json(json!({ "object": "list", "data": names(&app).map(|name| description(&app, name)).collect::<Vec<_>>() }).to_string()))
}

async fn model(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    app.ready()?;
    let no_name = |_| ApiError::new(StatusCode::NOT_FOUND, "model_not_found", "this is no name of a model");
    let model = find_model(&app, Some(&id.map_err(no_name)?.0))?;
    Ok(as_json(description(&app, model.1).to_string()))
}

/// The checkpoint, then the adapters.
fn names(app: &App) -> impl Iterator<Item = &str> {
    let adapters = app.settings.adapters.iter().map(|(name, _)| name.as_str());
    std::iter::once(app.settings.name.as_str()).chain(adapters)
}

fn description(app: &App, name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": app.created, "owned_by": "tg-llava" })
}

async fn not_found(request: Request) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {}", request.uri().path()))
}

async fn wrong_method(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{path} does not take {method}"),
    )
}

async fn chat(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let start = Instant::now();
    let deadline = start + app.settings.request_timeout;
    let ready = app.ready()?.clone();
    // From here on the request takes up memory, until its last byte is sent.
    let Ok(ticket) = app.tickets.clone().try_acquire_owned().map(Arc::new) else {
        throw_away(body, app.settings.max_body_bytes).await;
        let message = "the server has as many requests as it takes; try again shortly";
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message));
    };
    check_content_type(&headers)?;
    let prepared = async {
        let body = read_body(body, app.settings.max_body_bytes, app.settings.connections.patience).await?;
        prepare(&app, &ready, body, &ticket).await
    };
    let prepared = timeout_at(deadline.into(), prepared).await;
    let (request, work, (of, name)) = prepared.map_err(|_| ApiError::timeout())??;

    let form = Form {
        id: super::random_id("chatcmpl-"),
        created: super::unix_time(),
        model: name,
        fingerprint: ready.fingerprint.clone(),
        choices: request.n,
        logprobs: request.top_logprobs.is_some(),
        include_usage: request.include_usage,
    };
    let (sender, events) = unbounded_channel();
    let number = app.asked.fetch_add(1, Relaxed);
    let prompt_tokens = work.prompt_tokens;
    let pending = Pending {
        number,
        model: ready.model.clone(),
        events,
        ticket,
        phase: app.phase.clone(),
        start,
        deadline,
        metrics: app.metrics.clone(),
        span: tracing::Span::current(),
    };
    let ask = Command::Ask(Box::new(Ask { number, of, work, events: sender }));
    ready.model.send(ask).map_err(|_| ApiError::internal("the model's thread has ended"))?;
    let answering = Answering::new(pending, ready.intakes[of].clone(), form, prompt_tokens);
    Ok(if request.stream { answering.streamed().await } else { answering.whole().await })
}

/// Reads a request, its pictures and its prompt, away from the threads that serve connections. What runs there goes on when the
/// client goes away, and keeps the ticket until it is done.
async fn prepare(
    app: &Arc<App>,
    ready: &Arc<Ready>,
    body: Bytes,
    ticket: &Arc<OwnedSemaphorePermit>,
) -> Result<(ChatRequest, Work, (usize, String)), ApiError> {
    let (of_app, of_ready, held) = (app.clone(), ready.clone(), ticket.clone());
    let (request, fetched, model) = blocking(move || {
        let _held = held;
        let request = ChatRequest::read(&body, rand::random)?;
        let (of, name) = find_model(&of_app, request.model.as_deref())?;
        let fetched = of_ready.intakes[of].fetch(&request)?;
        Ok((request, fetched, (of, name.to_owned())))
    })
    .await?;
    // Decoded pictures are large: few at a time.
    let decoder = app.decoders.clone().acquire_owned().await;
    let (ready, held) = (ready.clone(), ticket.clone());
    blocking(move || {
        let _held = (decoder, held);
        let work = ready.intakes[model.0].prepare(&request, fetched)?;
        Ok((request, work, model))
    })
    .await
}

/// Runs what computes or waits on a thread of its own, in the log's context.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = tracing::Span::current();
    match spawn_blocking(move || span.in_scope(work)).await {
        Ok(result) => result,
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// The model that a request asks for: its number and its name.
fn find_model<'a>(app: &'a App, asked: Option<&str>) -> Result<(usize, &'a str), ApiError> {
    let asked = asked.filter(|name| *name != "default");
    let mut served = names(app).enumerate();
    let found = served.find(|(_, name)| asked.is_none_or(|asked| asked == *name));
    found.ok_or_else(|| {
        let there = names(app).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let message = format!("there is no model {:?} here; there is {there}", asked.unwrap_or_default());
        ApiError { status: StatusCode::NOT_FOUND, ..ApiError::field("model", "model_not_found", message) }
    })
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the content type must be application/json";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

/// The body. One that is too long is read on for as much again, since most clients read an answer only once they have sent
/// everything.
async fn read_body(body: Body, limit: usize, patience: Duration) -> Result<Bytes, ApiError> {
    let read = async {
        let mut stream = body.into_data_stream();
        let (mut bytes, mut len) = (Vec::new(), 0usize);
        while let Some(chunk) = stream.next().await {
            let cut = |_| ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", "the body ended too early");
            let chunk = chunk.map_err(cut)?;
            len += chunk.len();
            if len <= limit {
                bytes.extend_from_slice(&chunk);
            } else if len > limit.saturating_mul(2) {
                break;
            } else {
                bytes = Vec::new();
            }
        }
        if len <= limit {
            return Ok(bytes.into());
        }
        let message = format!("the body has more than {limit} bytes; send fewer or smaller pictures");
        Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message))
    };
    let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body took too long to arrive");
    tokio::time::timeout(patience, read).await.map_err(late)?
}

/// Lets a client send what will not be looked at, a `limit` of it, so that it reads the answer and keeps its connection.
async fn throw_away(body: Body, limit: usize) {
    let read = async {
        let (mut stream, mut len) = (body.into_data_stream(), 0usize);
        while let Some(Ok(chunk)) = stream.next().await {
            len += chunk.len();
            if len > limit {
                break;
            }
        }
    };
    // Whoever is slower finds the connection closed.
    let _ = tokio::time::timeout(REFUSED_BODY_TIMEOUT, read).await;
}

fn as_json(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl App {
    /// The model, where it is there and the server is not about to end.
    fn ready(&self) -> Result<&Arc<Ready>, ApiError> {
        match *self.phase.borrow() {
            Phase::Serving => self.ready.get().ok_or_else(ApiError::loading),
            Phase::Draining | Phase::Stopping => Err(ApiError::shutting_down()),
        }
    }
}
