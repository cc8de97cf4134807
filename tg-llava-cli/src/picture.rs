//! Pictures from files and from the web.

use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use tg_llava_core::preprocess::{DecodeOptions, ImageError, RgbImage, decode_bytes, decode_file};
use ureq::http::StatusCode;

use crate::failure::Failure;
use crate::web::MAX_REDIRECTS;

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a download may take as a whole.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Where a picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PictureSource {
    /// In a file.
    File(PathBuf),
    /// At an http or https address.
    Web(String),
}

impl PictureSource {
    /// What the user typed: an address where it begins with `http://` or `https://`, else a path, which need not be
    /// UTF-8.
    ///
    /// # Errors
    /// For an address of another kind.
    pub fn parse(typed: impl AsRef<OsStr>) -> Result<Self, String> {
        let Some(text) = typed.as_ref().to_str() else { return Ok(Self::File(typed.as_ref().into())) };
        match text.split_once("://") {
            Some((scheme, _)) if ["http", "https"].iter().any(|s| scheme.eq_ignore_ascii_case(s)) => {
                Ok(Self::Web(text.into()))
            }
            Some((scheme, _)) if !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Err(format!("{scheme}:// is not supported; give a file or an http(s) address"))
            }
            _ => Ok(Self::File(text.into())),
        }
    }

    /// Fetches and decodes the picture. Its format is found by content, never by name or content type.
    ///
    /// # Errors
    /// [`Failure::Input`] where there is no such picture or it cannot be read, [`Failure::Run`] where the network
    /// failed.
    pub fn read(&self, options: &DecodeOptions) -> Result<RgbImage, Failure> {
        match self {
            Self::File(path) => Ok(decode_file(path, options)?),
            Self::Web(url) => Ok(decode_bytes(&download(url, options.max_bytes)?, url, options)?),
        }
    }
}

impl std::fmt::Display for PictureSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Web(url) => f.write_str(url),
        }
    }
}

fn download(url: &str, max_bytes: u64) -> Result<Vec<u8>, Failure> {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(DOWNLOAD_TIMEOUT))
        .max_redirects(MAX_REDIRECTS as u32)
        .http_status_as_error(false)
        .user_agent(concat!("tg-llava-cli/", env!("CARGO_PKG_VERSION")))
        .build();
    let mut response = config.new_agent().get(url).call().map_err(|error| failed(url, error))?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(refused(url, status));
    }
    let too_long = |bytes| ImageError::TooManyBytes { name: url.into(), bytes, limit: max_bytes };
    let body = response.body_mut();
    if let Some(bytes) = body.content_length().filter(|&bytes| bytes > max_bytes) {
        return Err(too_long(bytes).into());
    }
    // The length may be unannounced, or wrong.
    let mut bytes = Vec::new();
    let mut reader = body.as_reader().take(max_bytes.saturating_add(1));
    reader.read_to_end(&mut bytes).map_err(|error| failed(url, error.into()))?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_long(bytes.len() as u64).into());
    }
    Ok(bytes)
}

fn failed(url: &str, error: ureq::Error) -> Failure {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            Failure::input(format_args!("{url}: not a web address: {error}"))
        }
        ureq::Error::HostNotFound => {
            Failure::Run(anyhow!("{url}: the server was not found; check the address and the network"))
        }
        ureq::Error::Timeout(_) => Failure::Run(anyhow!(
            "{url}: the server took too long ({error}); download the picture and give the file"
        )),
        ureq::Error::TooManyRedirects => Failure::Run(anyhow!(
            "{url}: more than {MAX_REDIRECTS} redirects; give the picture's own address"
        )),
        ureq::Error::Io(error) => Failure::Run(anyhow!("{url}: the download failed: {error}")),
        other => Failure::Run(anyhow!("{url}: the download failed: {other}")),
    }
}

fn refused(url: &str, status: StatusCode) -> Failure {
    let hint = match status.as_u16() {
        401 | 403 => "the server wants a login; download the picture and give the file",
        404 | 410 => "there is no such picture; check the address",
        429 | 500..=599 => "the server is busy or broken; try again later",
        _ => "download the picture and give the file",
    };
    Failure::input(format_args!("{url}: the server answered {status}: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        let web = |text: &str| matches!(PictureSource::parse(text), Ok(PictureSource::Web(_)));
        assert!(web("https://example.org/a.png") && web("HTTP://example.org"));
        for path in ["a.png", "/tmp/http:/a.png", "C:\\a.png", "dir/https://x", ""] {
            assert_eq!(PictureSource::parse(path), Ok(PictureSource::File(path.into())), "{path}");
        }
        assert!(PictureSource::parse("ftp://example.org/a.png").unwrap_err().contains("ftp://"));
    }
}
