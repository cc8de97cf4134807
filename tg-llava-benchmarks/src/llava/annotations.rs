//! Where the right answers are.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::LlavaError;

/// Folders that annotations may lie in, beside the questions or below a folder that is named.
const FOLDERS: [&str; 4] = ["", "coco", "data", "annotations"];

/// Files and folders with the right answers of a benchmark.
#[derive(Debug, Clone)]
pub struct Annotations {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Annotations {
    /// Those in the files and folders that are `named`, or beside the file of questions `data`.
    pub fn new(named: &[PathBuf], data: &Path) -> Self {
        let (folders, files): (Vec<_>, Vec<_>) = named.iter().cloned().partition(|path| path.is_dir());
        let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_path_buf();
        let beside = files.iter().map(|file| parent(file)).chain([parent(data)]).collect::<Vec<_>>();
        Self { files, folders: folders.into_iter().chain(beside).collect() }
    }

    /// The file of one of these names, in which a `*` stands for anything; or the one file that was named, whatever it is called, where
    /// nothing else is needed.
    pub(super) fn only(&self, names: &[&str]) -> Result<PathBuf, LlavaError> {
        match (self.find(names), self.files.as_slice()) {
            (Some(found), _) => Ok(found),
            (None, [file]) => Ok(file.clone()),
            _ => Err(self.missing(names.join(" or "))),
        }
    }

    /// The file of one of these names.
    pub(super) fn file(&self, names: &[&str]) -> Result<PathBuf, LlavaError> {
        self.find(names).ok_or_else(|| self.missing(names.join(" or ")))
    }

    /// The file of one of these names, where there is one.
    pub(super) fn find(&self, names: &[&str]) -> Option<PathBuf> {
        let own = self.files.iter().find(|path| names.iter().any(|name| is_called(path, name)));
        own.cloned().or_else(|| {
            let mut found = self.places().flat_map(|folder| matches_in(&folder, names));
            found.next()
        })
    }

    /// All files of a name, from the first place that has any.
    pub(super) fn all(&self, name: &str) -> Result<Vec<PathBuf>, LlavaError> {
        let own: Vec<PathBuf> = self.files.iter().filter(|path| is_called(path, name)).cloned().collect();
        let mut found = std::iter::once(own).chain(self.places().map(|folder| matches_in(&folder, &[name])));
        found.find(|paths| !paths.is_empty()).ok_or_else(|| self.missing(name.to_owned()))
    }

    /// The folder of this name, or one that is named and has `inside`.
    pub(super) fn folder(&self, name: &str, inside: &str) -> Result<PathBuf, LlavaError> {
        let candidates = self.folders.iter().flat_map(|folder| [folder.join(name), folder.clone()]);
        let found = candidates.into_iter().find(|folder| folder.join(inside).is_dir());
        found.ok_or_else(|| self.missing(format!("{name}/{inside}")))
    }

    fn places(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.folders.iter().flat_map(|folder| FOLDERS.iter().map(|below| folder.join(below)))
    }

    fn missing(&self, wanted: String) -> LlavaError {
        let mut places: Vec<String> = Vec::new();
        for path in self.files.iter().chain(&self.folders) {
            let name = if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() };
            if !places.contains(&name) {
                places.push(name);
            }
        }
        LlavaError::Missing { wanted, places: places.join(", ") }
    }
}

/// The files in `folder` that are called like one of `names`, sorted.
fn matches_in(folder: &Path, names: &[&str]) -> Vec<PathBuf> {
    if names.iter().all(|name| !name.contains('*')) {
        // Without looking through a folder, which may hold many pictures.
        return names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| names.iter().any(|name| is_called(path, name)) && path.is_file()).collect();
    found.sort();
    found
}

/// Whether a file is called `name`, in which one `*` may stand for anything.
fn is_called(path: &Path, name: &str) -> bool {
    let Some(file) = path.file_name().and_then(|file| file.to_str()) else { return false };
    match name.split_once('*') {
        None => file == name,
        Some((start, end)) => {
            file.len() >= start.len() + end.len() && file.starts_with(start) && file.ends_with(end)
        }
    }
}

/// A file's text.
pub(super) fn read(path: &Path) -> Result<String, LlavaError> {
    std::fs::read_to_string(path).map_err(|source| LlavaError::Read { path: path.to_path_buf(), source })
}

/// A file's value.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, LlavaError> {
    serde_json::from_str(&read(path)?).map_err(|source| LlavaError::Json { path: path.to_path_buf(), source })
}

/// A file's values, one a line.
pub(super) fn read_json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, LlavaError> {
    Ok(super::read_lines(&read(path)?, &path.display().to_string())?)
}
