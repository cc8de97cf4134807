//! Pictures that requests name: inside the request, and from hosts and a folder that the operator opened.

mod file;
mod hosts;
mod web;

use std::path::PathBuf;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::api::ApiError;
pub use hosts::Hosts;

/// Padding may be missing, as some clients leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where pictures may come from, besides the request itself.
#[derive(Debug, Clone, Default)]
pub struct Media {
    /// Hosts of `http(s)` addresses.
    pub hosts: Hosts,
    /// Folder of `file` addresses, without links in its own path; `None` for none.
    pub folder: Option<PathBuf>,
    /// Most bytes of a picture.
    pub max_bytes: u64,
}

impl Media {
    /// The encoded picture at `url`, which the field `param` names. May wait for the network.
    ///
    /// # Errors
    /// A refusal with status 400 and the code `invalid_image`.
    pub fn read(&self, url: &str, param: &str) -> Result<Vec<u8>, ApiError> {
        let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        let bytes = match scheme.as_deref() {
            Some("data") => inline(&url["data:".len()..]),
            Some("http" | "https") => web::fetch(url, &self.hosts, self.max_bytes),
            Some("file") => file::read(url, self.folder.as_deref(), self.max_bytes),
            _ => Err("a picture's address must begin with data:image/, http://, https:// or file://".into()),
        };
        bytes.map_err(|reason| invalid_image(param, &reason))
    }
}

/// The refusal of a picture.
pub fn invalid_image(param: &str, reason: &str) -> ApiError {
    ApiError::field(param, "invalid_image", format!("{param}: {reason}"))
}

/// The bytes of a `data:` address, without its scheme.
fn inline(rest: &str) -> Result<Vec<u8>, String> {
    let expected = "a data: address must read data:image/TYPE;base64,...";
    let (head, data) = rest.split_once(',').ok_or(expected)?;
    let head = head.to_ascii_lowercase();
    if !head.starts_with("image/") || !head.ends_with(";base64") {
        return Err(expected.into());
    }
    let data: Vec<u8> = data.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(data).map_err(|error| format!("the picture is no base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_may_hold_blanks_and_lack_padding() {
        let media = Media::default();
        for url in [
            "data:image/png;base64,aGk=",
            "DATA:Image/PNG;x=y;BASE64,aG\n k",
            "data:image/png;base64, aGk = ",
        ] {
            assert_eq!(media.read(url, "p").unwrap(), b"hi", "{url}");
        }
        assert_eq!(media.read("data:image/png;base64,", "p").unwrap(), b"");
    }

    #[test]
    fn other_addresses_are_refused_unless_opened() {
        let media = Media::default();
        for url in [
            "data:image/png;base64,!!!!",
            "data:image/png,aGk=",
            "data:text/html;base64,aGk=",
            "data:",
            "ftp://127.0.0.1/x.png",
            "malformed",
            "",
            "/etc/hostname",
            "file:///etc/hostname",
            "http://127.0.0.1:1/x.png",
            "https://example.org/x.png",
        ] {
            let error = media.read(url, "messages[0]").unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.code),
                (400, "invalid_image"),
                "{url}: {}",
                error.message
            );
        }
    }
}
