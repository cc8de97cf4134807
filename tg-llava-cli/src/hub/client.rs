//! What the hub is asked, over HTTP.

use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;
use ureq::Body;
use ureq::http::{HeaderMap, Method, Response, StatusCode, Uri, header};

use super::{HubError, HubSettings, ModelName};
use crate::web::{MAX_REDIRECTS, resolve};

/// What is done about a server that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It is waited for, and asked again.
    Long,
    /// It is asked once: there is something to use without it.
    Short,
}

impl Patience {
    /// How long a server may take to accept a connection.
    fn connect_timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::Long => 15,
            Self::Short => 3,
        })
    }
}

/// How long a server may send nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before each further attempt.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// Holds the SHA-256 of a large file, in the answer that sends on to where it is stored.
const LINKED_ETAG: &str = "x-linked-etag";

/// Asks the hub.
pub(super) struct Client<'a> {
    settings: &'a HubSettings,
    endpoint: Uri,
    agent: Agent,
    patience: Patience,
}

/// A model's files at a commit.
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// A file as the hub describes it.
pub(super) struct RemoteFile {
    pub name: String,
    pub url: String,
    /// The SHA-256 of a large file, some other name of its contents for small ones.
    pub etag: String,
    pub size: Option<u64>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl<'a> Client<'a> {
    pub fn new(settings: &'a HubSettings, patience: Patience) -> Result<Self, HubError> {
        let endpoint =
            settings.endpoint.parse().ok().filter(|uri: &Uri| {
                uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
            });
        let bad = || HubError::Endpoint { endpoint: settings.endpoint.clone() };
        let config = Agent::config_builder()
            .timeout_connect(Some(patience.connect_timeout()))
            .timeout_per_read(Some(PATIENCE))
            .timeout_per_write(Some(PATIENCE))
            // Where to is decided here, since the token may not go everywhere.
            .max_redirects(0)
            .http_status_as_error(false)
            // The bytes as they are kept.
            .accept_encoding("identity")
            .user_agent(concat!("tg-llava-cli/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { settings, endpoint: endpoint.ok_or_else(bad)?, agent: config.new_agent(), patience })
    }

    /// The model's files, and the commit that its revision stands for.
    pub fn list(&self, model: &ModelName) -> Result<Listing, HubError> {
        let (endpoint, revision) = (&self.settings.endpoint, encoded(model.revision()));
        let url = format!("{endpoint}/api/models/{}/revision/{revision}", model.name);
        let not_json = |reason: String| HubError::NoHub { url: url.clone(), reason };
        let info: Info = self.patiently(|| {
            let mut response = self.checked(model, Method::GET, &url, None)?;
            let text = response.body_mut().read_to_string();
            let text = text.map_err(|source| HubError::Network { url: url.clone(), source })?;
            serde_json::from_str(&text).map_err(|error| not_json(error.to_string()))
        })?;
        if !is_plain(&info.sha) {
            return Err(not_json(format!("{:?} is no commit", info.sha)));
        }
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename);
        Ok(Listing { commit: info.sha, files: files.collect() })
    }

    /// What the hub knows of a file, without its contents.
    pub fn describe(&self, model: &ModelName, commit: &str, file: &str) -> Result<RemoteFile, HubError> {
        let url =
            format!("{}/{}/resolve/{}/{}", self.settings.endpoint, model.name, commit, encoded_path(file));
        let response = self.patiently(|| self.checked(model, Method::HEAD, &url, None))?;
        let text = |name: &str| response.headers().get(name)?.to_str().ok();
        let etag = text(LINKED_ETAG).or_else(|| text("etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        if !is_plain(&etag) {
            let reason = format!("the answer has no usable ETag ({etag:?})");
            return Err(HubError::NoHub { url, reason });
        }
        let own = || text("content-length").filter(|_| !response.status().is_redirection());
        let size = text("x-linked-size").or_else(own).and_then(|size| size.parse().ok());
        Ok(RemoteFile { name: file.to_owned(), url, etag, size })
    }

    /// A file's contents from a byte on: the status is 206, or 200 where the server gives all of it instead.
    pub fn open(&self, model: &ModelName, file: &RemoteFile, from: u64) -> Result<Response<Body>, HubError> {
        self.checked(model, Method::GET, &file.url, Some(from).filter(|&from| from > 0))
    }

    /// Tries again, where that may help, after pauses.
    fn patiently<T>(&self, mut ask: impl FnMut() -> Result<T, HubError>) -> Result<T, HubError> {
        let mut attempts = Attempts::default();
        loop {
            match ask() {
                Err(error) if self.patience == Patience::Long => attempts.after(error)?,
                done => return done,
            }
        }
    }

    /// An answer that is none of refusal.
    fn checked(
        &self,
        model: &ModelName,
        method: Method,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, HubError> {
        let response = self.follow(method, url, from)?;
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(response);
        }
        let (model, endpoint) = (model.clone(), self.settings.endpoint.clone());
        let with_token = self.settings.token.is_some();
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        Err(match (status.as_u16(), code) {
            (_, Some("GatedRepo")) | (403, _) => HubError::Refused { model, endpoint, with_token },
            (_, Some("RevisionNotFound")) => HubError::NoRevision { model, endpoint },
            (401, Some("RepoNotFound")) | (404, Some("RepoNotFound") | None) => {
                HubError::NoModel { model, endpoint }
            }
            (401, _) => HubError::Refused { model, endpoint, with_token },
            (status, _) => HubError::Status { url: url.to_owned(), status },
        })
    }

    /// Follows redirects: all of them where contents are wanted; else those on the hub itself, since the one that leads to the
    /// storage carries what the hub says of the file.
    fn follow(&self, method: Method, url: &str, from: Option<u64>) -> Result<Response<Body>, HubError> {
        let network = |source| HubError::Network { url: url.to_owned(), source };
        let mut uri: Uri = url.parse().map_err(|_| network(ureq::Error::BadUri(url.to_owned())))?;
        for _ in 0..=MAX_REDIRECTS {
            let head = method == Method::HEAD;
            let mut request = if head { self.agent.head(uri.clone()) } else { self.agent.get(uri.clone()) };
            if let (Some(token), true) = (&self.settings.token, same_origin(&uri, &self.endpoint)) {
                request = request.header(header::AUTHORIZATION, token.header());
            }
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = request.call().map_err(network)?;
            let Some(next) = target(&uri, response.status(), response.headers()) else { return Ok(response) };
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(HubError::Downgrade { url: url.to_owned(), target: next.to_string() });
            }
            if head && (response.headers().contains_key(LINKED_ETAG) || !same_origin(&next, &uri)) {
                return Ok(response);
            }
            uri = next;
        }
        Err(network(ureq::Error::TooManyRedirects))
    }
}

/// How often something was tried in vain.
#[derive(Default)]
pub(super) struct Attempts(usize);

impl Attempts {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `error` itself, where another attempt will not help.
    pub fn after(&mut self, error: HubError) -> Result<(), HubError> {
        match PAUSES.get(self.0).filter(|_| error.may_pass()) {
            Some(pause) => std::thread::sleep(*pause),
            None => return Err(error),
        }
        self.0 += 1;
        Ok(())
    }

    /// Something came.
    pub fn succeeded(&mut self) {
        self.0 = 0;
    }
}

/// Where an answer sends on to.
fn target(uri: &Uri, status: StatusCode, headers: &HeaderMap) -> Option<Uri> {
    let location = headers.get(header::LOCATION).filter(|_| status.is_redirection())?;
    resolve(uri, location.to_str().ok()?)
}

fn same_origin(one: &Uri, other: &Uri) -> bool {
    let port =
        |uri: &Uri| uri.port_u16().or(if uri.scheme_str() == Some("https") { Some(443) } else { Some(80) });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    (one.scheme_str(), host(one), port(one)) == (other.scheme_str(), host(other), port(other))
}

/// Whether a text from the hub can be the name of a file.
fn is_plain(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// A path's parts in an address.
fn encoded_path(path: &str) -> String {
    path.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

/// A text as one part of an address.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        _ if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("https://hub.co/a", "https://HUB.co:443/b"));
        assert!(!same("https://hub.co/a", "http://hub.co/a"));
        assert!(!same("https://hub.co/a", "https://cdn.hub.co/a"));
        assert!(!same("http://127.0.0.1:1/a", "http://127.0.0.1:2/a"));
    }

    #[test]
    fn names_are_one_part_of_an_address() {
        assert_eq!(encoded("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encoded_path("a b/c.json"), "a%20b/c.json");
    }
}
