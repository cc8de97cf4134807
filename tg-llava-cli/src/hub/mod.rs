//! Models by their names on Hugging Face, kept where its Python tools keep them, so that each finds what the other has brought.
//!
//! What is there already is used without asking; [`Hub::fetch`] alone asks for news. A file is written beside its place, checked
//! and moved there, and a snapshot's revision is noted last: a fetch that was cut leaves nothing that looks whole.

mod choose;
mod client;
mod download;
mod error;
mod name;
mod settings;

use std::path::{Path, PathBuf};

pub use choose::Need;
pub use error::HubError;
pub use name::{ModelName, SHORT_NAMES};
pub use settings::{HubSettings, Token};

use self::choose::{choose, companions, is_usable, is_weights, is_whole, towers_inside};
use self::client::{Client, Patience, RemoteFile};
use self::download::Downloads;
use crate::console::Console;
use crate::progress::{Progress, short_bytes};

/// Hugging Face, and what was fetched from it.
#[derive(Debug)]
pub struct Hub {
    settings: HubSettings,
    console: Console,
}

/// What was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The model's folder.
    pub folder: PathBuf,
    /// The commit that it is at.
    pub commit: String,
}

impl Hub {
    /// As the environment says.
    pub fn of_environment(console: &Console) -> Self {
        Self { settings: HubSettings::of_environment(), console: *console }
    }

    /// The folder of a model, with all that it builds on by name: as it is in the cache, or fetched where something is missing.
    /// `has_base` says that what stage-1 files or an adapter build on is given.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub fn model(&self, name: &ModelName, has_base: bool) -> Result<PathBuf, HubError> {
        let folder = self.folder(name, Need::Everything)?;
        with_companions(&folder, has_base, |name, need| self.folder(name, need))?;
        Ok(folder)
    }

    /// The folder of one model.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub fn folder(&self, name: &ModelName, need: Need) -> Result<PathBuf, HubError> {
        let there = self.settings.cache.snapshot(&name.name, name.revision());
        // What else is missing shows when it is loaded.
        match there.filter(|folder| is_usable(folder, need)) {
            Some(folder) if self.settings.offline || is_whole(&folder, need) => Ok(folder),
            Some(folder) => match self.bring(name, need, Patience::Short) {
                Err(error) if error.is_unreachable() => {
                    self.console.note(format_args!("{error}; {name} is used as it is in the cache"));
                    Ok(folder)
                }
                done => Ok(done?.folder),
            },
            None => Ok(self.bring(name, need, Patience::Long)?.folder),
        }
    }

    /// Asks for a model's newest files at its revision, and brings those that are not there, with all that it builds on by name.
    ///
    /// # Errors
    /// Where they cannot be had.
    pub fn fetch(&self, name: &ModelName) -> Result<Fetched, HubError> {
        let bring = |name: &ModelName, need| self.bring(name, need, Patience::Long);
        let fetched = bring(name, Need::Everything)?;
        with_companions(&fetched.folder, false, |name, need| Ok(bring(name, need)?.folder))?;
        Ok(fetched)
    }

    /// `patience` is had with the hub until it has answered once.
    fn bring(&self, model: &ModelName, need: Need, patience: Patience) -> Result<Fetched, HubError> {
        let cache = &self.settings.cache;
        // Small files of a newer commit would take the place of a model whose weights are there.
        if need == Need::SmallFiles
            && let Some(folder) = cache.snapshot(&model.name, model.revision())
            && is_usable(&folder, Need::Everything)
        {
            let commit = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Fetched { folder, commit });
        }
        if self.settings.offline {
            return Err(HubError::Offline { model: model.clone(), cache: cache.root().to_path_buf() });
        }
        let listing = {
            let _spinner = Progress::spinner(&self.console, &format!("asking for {model}"));
            Client::new(&self.settings, patience)?.list(model)?
        };
        let client = Client::new(&self.settings, Patience::Long)?;
        let repository = cache.repository(&model.name);
        let snapshot = Snapshot {
            folder: repository.join("snapshots").join(&listing.commit),
            downloads: Downloads {
                client: &client,
                model,
                locks: cache.root().join(".locks").join(repository.file_name().unwrap_or_default()),
                repository,
                console: &self.console,
            },
            commit: listing.commit,
        };
        // It names the folders of towers that belong to the model.
        let config = listing.files.iter().find(|name| *name == "config.json");
        snapshot.bring(&config.map(|name| &**name).into_iter().collect::<Vec<_>>(), &self.console)?;
        let inside = towers_inside(&snapshot.folder.join("config.json"));
        let files = choose(&listing.files, &inside, need);
        if need == Need::Everything && !files.iter().any(|name| is_weights(name)) {
            return Err(HubError::NoWeights { model: model.clone() });
        }
        snapshot.bring(&files, &self.console)?;
        snapshot.note_revision()?;
        Ok(Fetched { folder: snapshot.folder, commit: snapshot.commit })
    }
}

/// Brings what the model in `folder` builds on.
fn with_companions(
    folder: &Path,
    has_base: bool,
    bring: impl Fn(&ModelName, Need) -> Result<PathBuf, HubError>,
) -> Result<(), HubError> {
    for (name, need) in companions(folder, has_base) {
        let folder = bring(&name, need)?;
        // What an adapter builds on may be a whole model with towers by name.
        for (name, need) in companions(&folder, true) {
            bring(&name, need)?;
        }
    }
    Ok(())
}

/// A model's files at a commit.
struct Snapshot<'a> {
    downloads: Downloads<'a>,
    folder: PathBuf,
    commit: String,
}

impl Snapshot<'_> {
    /// Brings those of `files` that are not there.
    fn bring(&self, files: &[&str], console: &Console) -> Result<(), HubError> {
        let Downloads { client, model, .. } = self.downloads;
        let missing = files.iter().filter(|name| !self.folder.join(name).exists());
        let missing: Vec<RemoteFile> =
            missing.map(|name| client.describe(model, &self.commit, name)).collect::<Result<_, _>>()?;
        if missing.is_empty() {
            return Ok(());
        }
        let total: Option<u64> = missing.iter().map(|file| file.size).sum();
        if missing.iter().any(|file| is_weights(&file.name)) {
            let size = total.map_or_else(String::new, |total| format!(", {}", short_bytes(total)));
            console.note(format_args!("fetching {model}: {} file(s){size}", missing.len()));
        }
        let bar = Progress::bytes(console, &model.name, total);
        let mut before = 0;
        for file in &missing {
            let mut done = 0;
            self.downloads.bring(file, &mut |bytes| {
                done = bytes;
                bar.set(before + bytes);
            })?;
            before += file.size.unwrap_or(done);
            self.link(file)?;
        }
        Ok(())
    }

    /// Gives a file's contents their name.
    fn link(&self, file: &RemoteFile) -> Result<(), HubError> {
        let place = self.folder.join(&file.name);
        let parent = place.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(parent).map_err(HubError::io(parent))?;
        match link(&self.downloads.blob(file), &place, file.name.matches('/').count()) {
            // Another process was quicker.
            Err(_) if place.exists() => Ok(()),
            done => done.map_err(HubError::io(place)),
        }
    }

    /// Notes which commit the revision stands for, at once or not at all.
    fn note_revision(&self) -> Result<(), HubError> {
        let revision = self.downloads.model.revision();
        let place = self.downloads.repository.join("refs").join(revision);
        let known = std::fs::read_to_string(&place).is_ok_and(|known| known == self.commit);
        if revision == self.commit || known {
            return Ok(());
        }
        let write = || {
            let folder = place.parent().unwrap_or(Path::new(""));
            std::fs::create_dir_all(folder)?;
            let beside = folder.join(format!(".{}.{}", self.commit, std::process::id()));
            std::fs::write(&beside, &self.commit)?;
            std::fs::rename(&beside, &place)
        };
        write().map_err(HubError::io(&place))
    }
}

/// A link that stays right where the cache is moved; `depth` is that of the file in its snapshot.
#[cfg(unix)]
fn link(blob: &Path, place: &Path, depth: usize) -> std::io::Result<()> {
    let up = "../".repeat(depth + 2);
    let target = Path::new(&up).join("blobs").join(blob.file_name().unwrap_or_default());
    // One that leads nowhere, as after a blob was removed by hand.
    if place.is_symlink() && !place.exists() {
        std::fs::remove_file(place)?;
    }
    std::os::unix::fs::symlink(target, place)
}

/// Where links need rights, Python's tools move the file too.
#[cfg(not(unix))]
fn link(blob: &Path, place: &Path, _depth: usize) -> std::io::Result<()> {
    std::fs::rename(blob, place)
}
