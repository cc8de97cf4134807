//! Pictures of `http(s)://` addresses.

use std::io::Read;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::{StatusCode, Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use super::Hosts;
use crate::web::{MAX_REDIRECTS, resolve};

/// How long a picture may take, redirects included.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Fetches what is at `url`, from `hosts` alone; each address that it leads to is checked again.
///
/// # Errors
/// A reason that tells nothing about who answers where.
pub fn fetch(url: &str, hosts: &Hosts, max_bytes: u64) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + TIMEOUT;
    let mut uri: Uri = url.parse().map_err(|_| "not a web address")?;
    for _ in 0..=MAX_REDIRECTS {
        let host = uri.host().unwrap_or_default();
        if !hosts.allows(host) {
            return Err("this server fetches no pictures from there (its operator can name hosts by --media-hosts); send \
                        the picture itself as a data: address"
                .into());
        }
        let mut response = agent(hosts, deadline)?.get(uri.clone()).call().map_err(reason)?;
        match response.status() {
            StatusCode::OK => {
                let mut bytes = Vec::new();
                let reader = response.body_mut().as_reader();
                // One byte more than allowed is refused by whoever decodes.
                reader
                    .take(max_bytes.saturating_add(1))
                    .read_to_end(&mut bytes)
                    .map_err(|_| "the picture could not be fetched to its end")?;
                return Ok(bytes);
            }
            status if status.is_redirection() => {
                let next = response.headers().get(header::LOCATION).and_then(|next| next.to_str().ok());
                uri =
                    next.and_then(|next| resolve(&uri, next)).ok_or("the picture's address leads nowhere")?;
            }
            status => return Err(format!("the picture could not be fetched: status {}", status.as_u16())),
        }
    }
    Err(format!("the picture's address leads on more than {MAX_REDIRECTS} times"))
}

/// A client that connects to allowed addresses alone, through no proxy, which would look names up itself.
fn agent(hosts: &Hosts, deadline: Instant) -> Result<Agent, String> {
    let left = deadline.checked_duration_since(Instant::now()).ok_or("the picture took too long")?;
    let config = Agent::config_builder()
        .timeout_global(Some(left))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .user_agent(concat!("tg-llava-cli/", env!("CARGO_PKG_VERSION")))
        .build();
    let resolver = Checked { hosts: hosts.clone(), inner: DefaultResolver::default() };
    Ok(Agent::with_parts(config, DefaultConnector::new(), resolver))
}

fn reason(error: Error) -> String {
    match error {
        Error::Timeout(_) => "the picture took too long".into(),
        _ => "the picture could not be fetched".into(),
    }
}

/// Looks names up and keeps what may be connected to.
#[derive(Debug)]
struct Checked {
    hosts: Hosts,
    inner: DefaultResolver,
}

impl Resolver for Checked {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let mut allowed = self.empty();
        for address in self.inner.resolve(uri, config, timeout)?.iter() {
            if self.hosts.allows_address(host, address.ip()) {
                allowed.push(*address);
            }
        }
        if allowed.is_empty() { Err(Error::HostNotFound) } else { Ok(allowed) }
    }
}
