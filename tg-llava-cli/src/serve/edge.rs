//! What holds for every request: its id, its log lines, who may ask, and which other sites' pages may.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::App;
use super::api::ApiError;

/// Names a request, in its response and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most characters of a client's own id.
const MAX_REQUEST_ID: usize = 128;
/// What answers without a key: whether the server is there, how to talk to it, and the page, which asks for the key.
const OPEN_PATHS: [&str; 3] = ["/health", "/", "/openapi.json"];

/// Surrounds every handler.
pub async fn surround(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let origin = app.settings.cors.allowed(request.headers());
    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default());
    let mut response = if origin.is_some() && is_preflight(&request) {
        preflight()
    } else if OPEN_PATHS.contains(&&*path) || app.settings.keys.allow(request.headers()) {
        next.run(request).instrument(span.clone()).await
    } else {
        let message = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`";
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).into_response()
    };
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some(origin) = origin {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
        response.headers_mut().insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("x-request-id, retry-after"),
        );
    }
    let status = response.status().as_u16();
    if path.ends_with("/chat/completions") {
        app.metrics.responded(status);
    }
    let seconds = start.elapsed().as_secs_f64();
    span.in_scope(|| tracing::info!(%method, path, status, seconds, "responded"));
    response
}

/// The client's id where it is visible ASCII of a decent length, else one of ours.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=MAX_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    let ours = || HeaderValue::from_str(&super::random_id("req-")).ok();
    given.cloned().or_else(ours).unwrap_or_else(|| HeaderValue::from_static("req-unknown"))
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-request-id"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Which other sites' pages may ask.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    /// Origins such as `http://localhost:3000`, or `*`.
    pub origins: Vec<String>,
}

impl Cors {
    /// The origin to allow in the answer to a request with these headers.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let named = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
        self.origins.iter().any(named).then(|| origin.clone())
    }
}

/// Keys that open the server. Never shown.
#[derive(Clone, Default)]
pub struct Keys(Vec<String>);

impl Keys {
    /// These keys; without one, everybody may ask.
    pub fn new(keys: Vec<String>) -> Self {
        Self(keys)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn allow(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
        });
        self.0.is_empty()
            || given
                .is_some_and(|given| self.0.iter().fold(false, |any, key| any | same(key.as_bytes(), given)))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} key(s)", self.0.len())
    }
}

/// Whether both are the same, in a time that tells nothing about where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_key_opens_as_a_bearer_alone() {
        let keys = Keys::new(vec!["one".into(), "two".into()]);
        let allow = |value: &str| keys.allow(&headers(header::AUTHORIZATION, value));
        assert!(allow("Bearer one") && allow("bearer two"));
        for wrong in ["one", "Bearer", "Bearer ", "Bearer on", "Bearer onee", "Basic one", "Bearer  one"] {
            assert!(!allow(wrong), "{wrong}");
        }
        assert!(!keys.allow(&HeaderMap::new()));
        assert!(Keys::default().allow(&HeaderMap::new()));
        assert_eq!(format!("{keys:?}"), "2 key(s)");
    }

    #[test]
    fn a_clients_id_is_kept_where_it_can_be_logged() {
        let id = |value: &str| request_id(&headers(REQUEST_ID, value)).to_str().unwrap().to_owned();
        assert_eq!(id("my-1"), "my-1");
        for bad in ["", "two words", &"x".repeat(129)] {
            assert!(id(bad).starts_with("req-"), "{bad}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn other_origins_are_refused_unless_named() {
        let cors = Cors { origins: vec!["http://a:1".into()] };
        assert!(cors.allowed(&headers(header::ORIGIN, "http://a:1")).is_some());
        assert!(cors.allowed(&headers(header::ORIGIN, "http://b")).is_none());
        assert!(cors.allowed(&HeaderMap::new()).is_none());
    }
}
