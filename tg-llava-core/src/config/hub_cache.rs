//! Where Hugging Face's tools keep what they have downloaded. Reads that folder alone; nothing here downloads.
//!
//! The layout is that of Python's `huggingface_hub`: `models--OWNER--NAME` holds `blobs` by checksum, `snapshots/COMMIT` whose
//! files are links to them, and `refs/REVISION` with the commit that a branch or tag stood for when it was asked last.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// The revision that is meant where none is named.
pub const MAIN_REVISION: &str = "main";

/// The folder that all downloads are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCache {
    root: PathBuf,
}

impl HubCache {
    /// The one in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The one that the environment names: `HF_HUB_CACHE`, `hub` in [`hugging_face_home`], `~/.cache/huggingface/hub`.
    pub fn of_environment() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let named = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];
        let named = named.into_iter().find_map(|name| path(&variable, name));
        Self::new(named.unwrap_or_else(|| home(&variable).join("hub")))
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of everything that belongs to the model `name`, `OWNER/NAME`.
    pub fn repository(&self, name: &str) -> PathBuf {
        self.root.join(format!("models--{}", name.replace('/', "--")))
    }

    /// The files of the model `name` at a branch, tag or commit, as far as they are there; `None` where it was never asked for.
    pub fn snapshot(&self, name: &str, revision: &str) -> Option<PathBuf> {
        if !is_hub_name(name) || !stays_inside(revision) {
            return None;
        }
        let repository = self.repository(name);
        let commit = match std::fs::read_to_string(repository.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => revision.to_owned(),
        };
        let snapshot = repository.join("snapshots").join(&commit);
        (stays_inside(&commit) && snapshot.is_dir()).then_some(snapshot)
    }
}

/// The folder of all of Hugging Face's settings: `HF_HOME`, or `huggingface` in `XDG_CACHE_HOME` or `~/.cache`.
pub fn hugging_face_home() -> PathBuf {
    home(&|name| std::env::var_os(name))
}

fn home(variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    path(variable, "HF_HOME").unwrap_or_else(|| {
        let caches = path(variable, "XDG_CACHE_HOME");
        caches.unwrap_or_else(|| user(variable).join(".cache")).join("huggingface")
    })
}

fn user(variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    ["HOME", "USERPROFILE"].into_iter().find_map(variable).map(PathBuf::from).unwrap_or_default()
}

/// A path in a variable; `~` at its start is the user's folder, as in Python's tools.
fn path(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(variable(name).filter(|value| !value.is_empty())?);
    Some(match path.strip_prefix("~") {
        Ok(below) => user(variable).join(below),
        Err(_) => path,
    })
}

/// Whether `name` is `OWNER/NAME` as models on Hugging Face are called. A path may look the same.
pub fn is_hub_name(name: &str) -> bool {
    let good = |part: &str| {
        let bytes = part.as_bytes();
        (1..=96).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
    };
    name.split_once('/').is_some_and(|(owner, name)| good(owner) && good(name))
}

/// `OWNER/NAME`, where `dir` is a snapshot of it.
pub fn hub_name_of(dir: &Path) -> Option<String> {
    let snapshots = dir.parent().filter(|parent| parent.file_name() == Some("snapshots".as_ref()))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?;
    let (owner, name) = repository.strip_prefix("models--")?.split_once("--")?;
    Some(format!("{owner}/{name}"))
}

/// What a model's folder is called: its last part, or the name on Hugging Face, whose snapshots are named by commit.
pub fn folder_name(dir: &Path) -> String {
    match hub_name_of(dir) {
        Some(name) => name.rsplit('/').next().unwrap_or_default().to_owned(),
        None => dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
    }
}

/// What a checkpoint calls the folder that it builds on: its name on Hugging Face, which means the same on another machine, or else its
/// absolute path.
pub fn reference_to(dir: &Path) -> String {
    let path = || dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    hub_name_of(dir).unwrap_or_else(|| path().to_string_lossy().into_owned())
}

/// Whether a name from a file or a user leads nowhere else.
fn stays_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(variables: &[(&str, &str)]) -> PathBuf {
        let get = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        HubCache::of(get).root
    }

    #[test]
    fn the_cache_is_where_pythons_tools_have_it() {
        let user = ("HOME", "/home/me");
        assert_eq!(cache(&[user]), Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(cache(&[user, ("XDG_CACHE_HOME", "/caches")]), Path::new("/caches/huggingface/hub"));
        let home = ("HF_HOME", "/hf");
        assert_eq!(cache(&[user, ("XDG_CACHE_HOME", "/caches"), home]), Path::new("/hf/hub"));
        assert_eq!(cache(&[user, home, ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        let both = [home, ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")];
        assert_eq!(cache(&both), Path::new("/new"));
        assert_eq!(cache(&[user, ("HF_HOME", "~/hf")]), Path::new("/home/me/hf/hub"));
        assert_eq!(cache(&[user, ("HF_HOME", "")]), Path::new("/home/me/.cache/huggingface/hub"));
    }

    #[test]
    fn a_revision_leads_to_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let cache = HubCache::new(dir.path());
        let repository = dir.path().join("models--owner--na.me");
        std::fs::create_dir_all(repository.join("snapshots/abc")).unwrap();
        std::fs::create_dir_all(repository.join("refs/pr")).unwrap();
        std::fs::write(repository.join("refs/main"), "abc").unwrap();
        std::fs::write(repository.join("refs/pr/1"), "abc\n").unwrap();
        std::fs::write(repository.join("refs/gone"), "def").unwrap();
        std::fs::write(repository.join("refs/evil"), "../../..").unwrap();
        for revision in ["main", "abc", "pr/1"] {
            let found = cache.snapshot("owner/na.me", revision).unwrap();
            assert_eq!(found, repository.join("snapshots/abc"), "{revision}");
            assert_eq!(hub_name_of(&found).unwrap(), "owner/na.me");
            assert_eq!(folder_name(&found), "na.me");
        }
        for revision in ["gone", "evil", "other", "../snapshots/abc", ""] {
            assert_eq!(cache.snapshot("owner/na.me", revision), None, "{revision}");
        }
        assert_eq!(cache.snapshot("owner/other", "main"), None);
        assert_eq!(folder_name(Path::new("/a/b")), "b");
    }

    #[test]
    fn names_are_told_from_other_texts() {
        for name in ["openai/clip-vit-large-patch14-336", "lmsys/vicuna-7b-v1.5", "a/B_c"] {
            assert!(is_hub_name(name), "{name}");
        }
        for other in
            ["gpt2", "a/b/c", "./a", "../a", "/a", "a/", "a/..", "a b/c", "a/b--c", "~/a", "a\\b/c", ""]
        {
            assert!(!is_hub_name(other), "{other}");
        }
    }
}
