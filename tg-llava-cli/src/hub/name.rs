//! What models on Hugging Face are called.

use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use tg_llava_core::config::{MAIN_REVISION, is_hub_name};

/// Short names of the models that this project is used with, for `fetch`.
pub const SHORT_NAMES: [(&str, &str); 8] = [
    ("clip-l-336", "openai/clip-vit-large-patch14-336"),
    ("siglip-so400m-384", "google/siglip-so400m-patch14-384"),
    ("vicuna-7b", "lmsys/vicuna-7b-v1.5"),
    ("vicuna-13b", "lmsys/vicuna-13b-v1.5"),
    ("llama3-8b", "meta-llama/Meta-Llama-3-8B-Instruct"),
    ("qwen2-7b", "Qwen/Qwen2-7B-Instruct"),
    ("qwen2-0.5b", "Qwen/Qwen2-0.5B-Instruct"),
    ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
];

/// A model on Hugging Face at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// `OWNER/NAME`.
    pub name: String,
    /// Branch, tag or commit, where one was named.
    pub revision: Option<String>,
}

impl ModelName {
    /// What `path` names, where it is no path of this machine: neither a folder, nor below one that is there.
    pub fn instead_of(path: &Path) -> Option<Self> {
        let name: Self = path.to_str()?.parse().ok()?;
        (!path.exists() && !first_part(path)?.exists()).then_some(name)
    }

    /// The folder here that makes a path of `path`, which may be meant as a name.
    pub fn hidden_by(path: &Path) -> Option<&Path> {
        let _: Self = path.to_str()?.parse().ok()?;
        first_part(path).filter(|first| first.exists())
    }

    /// The revision that is meant.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN_REVISION)
    }

    /// A short name for what it stands for, and any other name as it is; with a revision or without.
    ///
    /// # Errors
    /// What would be right.
    pub fn read_short(text: &str) -> Result<Self, String> {
        let (name, revision) = text.split_once('@').map_or((text, None), |(name, rest)| (name, Some(rest)));
        match SHORT_NAMES.iter().find(|(short, _)| *short == name) {
            Some((_, name)) => Ok(Self { name: (*name).to_owned(), revision: revision.map(str::to_owned) }),
            None => text.parse().map_err(|reason: String| {
                let short: Vec<&str> = SHORT_NAMES.iter().map(|(short, _)| *short).collect();
                format!("{reason}, or one of {}", short.join(", "))
            }),
        }
    }
}

/// The first part of a path from here.
fn first_part(path: &Path) -> Option<&Path> {
    let first = path.components().next().filter(|part| matches!(part, Component::Normal(_)))?;
    Some(Path::new(first.as_os_str()))
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, revision) = text.split_once('@').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let good = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+".contains(&byte);
            let inside = |part: &str| !part.is_empty() && part != "." && !part.contains("..");
            text.len() <= 255 && text.bytes().all(plain) && text.split('/').all(inside)
        };
        if !is_hub_name(name) || !revision.is_none_or(good) {
            return Err("a model on Hugging Face is named OWNER/NAME or OWNER/NAME@REVISION".into());
        }
        Ok(Self { name: name.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_owner_and_perhaps_a_revision() {
        let name: ModelName = "lmsys/vicuna-7b-v1.5@refs/pr/1".parse().unwrap();
        assert_eq!((&*name.name, name.revision()), ("lmsys/vicuna-7b-v1.5", "refs/pr/1"));
        assert_eq!(name.to_string(), "lmsys/vicuna-7b-v1.5@refs/pr/1");
        assert_eq!("a/b".parse::<ModelName>().unwrap().revision(), "main");
        for bad in [
            "a",
            "a/b@",
            "a/b@..",
            "a/b@x y",
            "a/b@/etc/x",
            "a/b@x/",
            "a/b@x//y",
            "a/b@./x",
            "a/b/c",
            "@x",
            "a/b@c@d",
        ] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad}");
        }
        let short = ModelName::read_short("clip-l-336@v1").unwrap();
        assert_eq!(short.to_string(), "openai/clip-vit-large-patch14-336@v1");
        assert!(ModelName::read_short("vicuna-70b").unwrap_err().contains("vicuna-13b"));
    }

    #[test]
    fn what_may_be_a_path_is_one() {
        // Tests run in the folder of the crate.
        for path in ["src", "src/hub", "src/nothing", "./a/b", "../a/b", "/a/b", "a", "a/b/c"] {
            assert_eq!(ModelName::instead_of(Path::new(path)), None, "{path}");
        }
        assert_eq!(ModelName::hidden_by(Path::new("src/nothing")), Some(Path::new("src")));
        for path in ["./a/b", "a/b/c", "owner/name"] {
            assert_eq!(ModelName::hidden_by(Path::new(path)), None, "{path}");
        }
        assert_eq!(ModelName::instead_of(Path::new("owner/name@v1")).unwrap().revision(), "v1");
    }
}
