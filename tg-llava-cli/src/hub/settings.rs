//! How Hugging Face is reached, by the variables that its Python tools read.

use std::path::PathBuf;

use tg_llava_core::config::{HubCache, hugging_face_home};

/// Where models come from where `HF_ENDPOINT` names no mirror.
const ENDPOINT: &str = "https://huggingface.co";

/// How Hugging Face is reached, and where its files are kept.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Address of the hub, without a slash at its end.
    pub endpoint: String,
    /// Where files are kept.
    pub cache: HubCache,
    /// Who asks.
    pub token: Option<Token>,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// An access token. Never shown.
#[derive(Clone)]
pub struct Token(String);

impl HubSettings {
    /// As the environment says: `HF_ENDPOINT`; `HF_HUB_CACHE` and `HF_HOME`; `HF_TOKEN`, or the file that `hf auth login`
    /// writes; `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE`.
    pub fn of_environment() -> Self {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: HubCache::of_environment(),
            token: Token::of_environment(),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
        }
    }
}

impl Token {
    fn of_environment() -> Option<Self> {
        let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(variable);
        let from_file = || {
            if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                return None;
            }
            let file = variable("HF_TOKEN_PATH").map(PathBuf::from);
            std::fs::read_to_string(file.unwrap_or_else(|| hugging_face_home().join("token"))).ok()
        };
        let token = named.or_else(from_file)?.trim().to_owned();
        (!token.is_empty()).then_some(Self(token))
    }

    /// What goes into the header `authorization`.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn is_on(name: &str) -> bool {
    variable(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&&*value.to_uppercase()))
}
