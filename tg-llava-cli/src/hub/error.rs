//! Why a model could not be had from Hugging Face, and what to do.

use std::path::PathBuf;

use thiserror::Error;

use super::ModelName;
use crate::failure::Failure;

/// Why a model could not be had.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum HubError {
    #[error("HF_ENDPOINT = {endpoint:?} is no web address; it must read https://HOST")]
    Endpoint { endpoint: String },
    #[error(
        "{model} is not (whole) in {}, and HF_HUB_OFFLINE forbids the network; with a network, `tg-llava-cli fetch {model}` \
         brings it there", cache.display()
    )]
    Offline { model: ModelName, cache: PathBuf },
    #[error(
        "there is no model {model} at {endpoint}, nor a folder of that name here; a private one needs a token in HF_TOKEN"
    )]
    NoModel { model: ModelName, endpoint: String },
    #[error("{model}: there is no such revision; see {endpoint}/{}/tree/main for branches and tags", model.name)]
    NoRevision { model: ModelName, endpoint: String },
    #[error(
        "{model}: access is refused: accept its licence at {endpoint}/{}, then set HF_TOKEN to a token of that account \
         ({endpoint}/settings/tokens){}", model.name, if *with_token { "; the token that was sent is not enough" } else { "" }
    )]
    Refused { model: ModelName, endpoint: String, with_token: bool },
    #[error(
        "{model} holds no weights that can be loaded (model*.safetensors, pytorch_model*.bin or mm_*.bin)"
    )]
    NoWeights { model: ModelName },
    #[error("{url}: {reason}; is HF_ENDPOINT right?")]
    NoHub { url: String, reason: String },
    #[error("{url}: the server answered {status}; what came so far is kept: run the same command again")]
    Status { url: String, status: u16 },
    #[error("{url}: {source}; what came so far is kept: run the same command again")]
    Network { url: String, source: ureq::Error },
    #[error("{url} sends on to {target}, which is not encrypted; nothing was sent there")]
    Downgrade { url: String, target: String },
    #[error(
        "{file} of {model} has another checksum than it should (sha256 {found}, not {expected}); it was removed: run the same \
         command again"
    )]
    Checksum { model: ModelName, file: String, expected: String, found: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl HubError {
    /// Names the file in what the system said.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }

    /// Whether nothing was learned of the model.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::NoHub { .. } | Self::Status { .. } | Self::Network { .. })
    }

    /// Whether another attempt may do better.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::Network { source, .. } => !matches!(source, ureq::Error::BadUri(_) | ureq::Error::Tls(_)),
            _ => false,
        }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error {
            HubError::NoHub { .. }
            | HubError::Status { .. }
            | HubError::Network { .. }
            | HubError::Downgrade { .. }
            | HubError::Checksum { .. }
            | HubError::Io { .. } => Self::Run(error.into()),
            _ => Self::Input(error.into()),
        }
    }
}
