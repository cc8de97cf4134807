//! Which pictures are there, counted by the folders at the top.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tg_llava_core::preprocess::{DecodeOptions, decode_file};
use tg_llava_train::data::is_inside;

/// Pictures of each kind of trouble that are listed for each folder.
const SHOWN: usize = 5;

/// Endings that a picture may have in the place of the one that the data names.
const ENDINGS: [&str; 6] = ["jpg", "png", "gif", "jpeg", "JPG", "webp"];

/// What is looked at.
pub(super) struct Looking<'a> {
    /// Where the pictures' names count from.
    pub folder: &'a Path,
    /// Whether they may lead out of it.
    pub allow_outside: bool,
    /// How to decode them, where that is wanted.
    pub decode: Option<DecodeOptions>,
}

/// Why a run could not use a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Trouble {
    /// No such file.
    Missing,
    /// There is one with another ending, which is no way to find it.
    OtherEnding,
    /// It lies outside the image folder, where a run does not read unless it is told to.
    Outside,
    /// A file of no bytes.
    Empty,
    /// It cannot be decoded.
    Damaged,
}

/// Pictures in one kind of trouble.
#[derive(Debug, Default, Serialize)]
pub(super) struct Listed {
    pub count: usize,
    /// The first of them by name, with what else is known.
    pub first: BTreeSet<String>,
}

/// Pictures of one folder at the top of the image folder.
#[derive(Debug, Default, Serialize)]
pub(super) struct FolderTally {
    /// Pictures that the data names, each once.
    pub named: usize,
    /// Those that a run can use.
    pub present: usize,
    /// The others.
    #[serde(flatten)]
    pub troubles: BTreeMap<Trouble, Listed>,
}

/// By the folder's name: `.` for the image folder itself, `/` for absolute names.
pub(super) type Tallies = BTreeMap<String, FolderTally>;

impl Looking<'_> {
    /// Looks for all of `names`, on all cores; `done` is called for each.
    pub(super) fn at(&self, names: &[String], done: impl Fn() + Sync) -> Tallies {
        let (next, all) = (AtomicUsize::new(0), Mutex::new(Tallies::new()));
        let work = || {
            let mut own = Tallies::new();
            while let Some(name) = names.get(next.fetch_add(1, Relaxed)) {
                own.entry(top(name).to_owned()).or_default().add(self.trouble(name));
                done();
            }
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            own.into_iter().for_each(|(top, tally)| all.entry(top).or_default().merge(tally));
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        all.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the picture cannot be used, and the words that list it.
    fn trouble(&self, name: &str) -> Option<(Trouble, String)> {
        let path = self.folder.join(name);
        // Links are followed: what counts is what a run would open.
        let bytes = match path.metadata() {
            Ok(file) if file.is_file() => file.len(),
            _ => {
                return Some(match other_ending(&path) {
                    Some(ending) => (Trouble::OtherEnding, format!("{name} (there as .{ending})")),
                    None => (Trouble::Missing, name.to_owned()),
                });
            }
        };
        if !self.allow_outside && !is_inside(self.folder, name) {
            return Some((Trouble::Outside, name.to_owned()));
        }
        if bytes == 0 {
            return Some((Trouble::Empty, name.to_owned()));
        }
        let error = decode_file(&path, self.decode.as_ref()?).err()?;
        Some((Trouble::Damaged, error.to_string()))
    }
}

fn top(name: &str) -> &str {
    match name.split_once('/') {
        Some(("", _)) => "/",
        Some((top, _)) => top,
        None => ".",
    }
}

/// The ending under which the picture lies beside the name that the data has.
fn other_ending(path: &Path) -> Option<&'static str> {
    ENDINGS.into_iter().find(|ending| path.with_extension(ending).is_file())
}

impl Listed {
    fn keep(&mut self, words: impl IntoIterator<Item = String>) {
        self.first.extend(words);
        while self.first.len() > SHOWN {
            self.first.pop_last();
        }
    }
}

impl FolderTally {
    fn add(&mut self, trouble: Option<(Trouble, String)>) {
        self.named += 1;
        match trouble {
            None => self.present += 1,
            Some((trouble, words)) => {
                let listed = self.troubles.entry(trouble).or_default();
                listed.count += 1;
                listed.keep([words]);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.named += other.named;
        self.present += other.present;
        for (trouble, Listed { count, first }) in other.troubles {
            let listed = self.troubles.entry(trouble).or_default();
            listed.count += count;
            listed.keep(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_are_kept_whichever_thread_found_them() {
        let mut all = FolderTally::default();
        for names in [["z", "b", "y"], ["x", "a", "w"]] {
            let mut own = FolderTally::default();
            names.into_iter().for_each(|name| own.add(Some((Trouble::Missing, name.to_owned()))));
            own.add(None);
            all.merge(own);
        }
        let missing = &all.troubles[&Trouble::Missing];
        assert_eq!((all.named, all.present, missing.count), (8, 2, 6));
        assert!(missing.first.iter().eq(["a", "b", "w", "x", "y"]));
    }
}
