use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::error::BoxedError;
use super::files::{names_in, read_versioned, remove_folder, replace_file, sync_folder, versioned_json};
use super::folder_name::{FolderName, Purpose};
use super::manifest::Manifest;
use super::rotation::beyond_limit;
use super::{Best, Checkpoint, CheckpointError, Damage, Damaged, Result, Rotation};

const BEST_FILE: &str = "best.json";
const BEST_TEMPORARY: &str = "tmp-best.json";
/// What a kill leaves while the metrics are cut back to a checkpoint's step.
const METRICS_TEMPORARY: &str = "metrics.jsonl.partial";
const BEST_VERSION: u64 = 1;

/// The checkpoints of a run's output folder.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    output_dir: PathBuf,
    keep: Option<NonZeroUsize>,
}

/// A checkpoint that was written.
#[derive(Debug)]
pub struct Saved {
    /// Its folder.
    pub path: PathBuf,
    /// Older ones that went, and problems with that; the save itself is done.
    pub rotation: Rotation,
}

/// What was found on the way to the newest usable checkpoint.
#[derive(Debug)]
pub struct Latest {
    /// The one that was saved last among the valid ones.
    pub checkpoint: Option<Checkpoint>,
    /// Folders of the run that cannot be used and are newer, or do not tell their age; worth a warning.
    pub damaged: Vec<Damaged>,
}

/// A folder whose manifest can be read.
struct Listed {
    manifest: Manifest,
    path: PathBuf,
}

impl CheckpointStore {
    /// Opens `output_dir`, and creates it where it is missing.
    ///
    /// `keep` is the HF Trainer's `save_total_limit`; without it all checkpoints stay. A checkpoint that made
    /// room for a save that did not arrive is put back.
    ///
    /// # Errors
    /// Where the folder cannot be created, listed or written.
    pub fn open(output_dir: impl Into<PathBuf>, keep: Option<NonZeroUsize>) -> Result<Self> {
        let store = Self::at(output_dir, keep);
        fs::create_dir_all(&store.output_dir).map_err(|e| CheckpointError::io(&store.output_dir, e))?;
        store.put_back()?;
        Ok(store)
    }

    /// `output_dir` as it is, which another process has opened.
    pub fn at(output_dir: impl Into<PathBuf>, keep: Option<NonZeroUsize>) -> Self {
        Self { output_dir: output_dir.into(), keep }
    }

    /// The folder that was opened.
    pub fn output_dir(&self) -> &Path {
        &self.output_dir
    }

    /// Where the checkpoint of a step is, or would be.
    pub fn path_of(&self, step: usize) -> PathBuf {
        self.join(FolderName::Checkpoint(step))
    }

    /// Saves a checkpoint: `write` fills the folder that it is given, and only when all of it is on the disk
    /// does it become `checkpoint-<step>`, in place of one that is there. Then the oldest beyond `keep` go.
    ///
    /// Other folders, and those whose manifest is damaged, are neither counted nor deleted.
    ///
    /// # Errors
    /// Where `write` fails or something cannot be written; earlier checkpoints are then as they were, and the
    /// temporary folder is gone unless that fails as well.
    pub fn save<E: Into<BoxedError>>(
        &self,
        step: usize,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Saved> {
        let listed = self.listed()?.0;
        let needed = listed.last().map(|newest| newest.manifest.total_bytes());
        let saved = listed.iter().map(|listed| listed.manifest.saved).max().unwrap_or(0).saturating_add(1);
        let unfinished = Unfinished::create(self.temporary(Purpose::Unfinished, step))?;
        write(&unfinished.path)
            .map_err(|error| CheckpointError::contents(&unfinished.path, error.into()))
            .and_then(|()| Manifest::write(&unfinished.path, step, saved))
            .map_err(|error| error.with_needed(needed))?;
        let path = self.put_in_place(&unfinished, step)?;
        Ok(Saved { path, rotation: self.rotate() })
    }

    /// The newest checkpoint that is whole; damaged ones are passed over and told.
    ///
    /// # Errors
    /// Where the output folder cannot be listed.
    pub fn latest(&self) -> Result<Latest> {
        let (listed, mut damaged) = self.listed()?;
        for Listed { path, .. } in listed.into_iter().rev() {
            match Checkpoint::open(path) {
                Ok(checkpoint) => return Ok(Latest { checkpoint: Some(checkpoint), damaged }),
                Err(error) => damaged.push(error),
            }
        }
        Ok(Latest { checkpoint: None, damaged })
    }

    /// Marks a saved checkpoint as the best so far, which rotation then keeps; the one before may go.
    ///
    /// # Errors
    /// Where the score is not finite, the step was not saved, or `best.json` cannot be written.
    pub fn mark_best(&self, best: &Best) -> Result<Rotation> {
        let path = self.output_dir.join(BEST_FILE);
        let Best { step, metric, value } = best;
        if !value.is_finite() {
            let metric = metric.clone();
            return Err(CheckpointError::NotFinite { path, metric, step: *step, value: *value });
        }
        if !self.path_of(*step).is_dir() {
            return Err(CheckpointError::NotSaved { path: self.path_of(*step), step: *step });
        }
        let json = versioned_json(&path, BEST_VERSION, best)?;
        replace_file(&path, &self.output_dir.join(BEST_TEMPORARY), &json)?;
        Ok(self.rotate())
    }

    /// The checkpoint that was marked as the best, verified, with its score.
    ///
    /// # Errors
    /// Where `best.json` cannot be read, or the checkpoint that it names is damaged or gone.
    pub fn best(&self) -> Result<Option<(Best, Checkpoint)>> {
        let Some(best) = self.best_record()? else { return Ok(None) };
        let checkpoint = Checkpoint::open(self.path_of(best.step))?;
        Ok(Some((best, checkpoint)))
    }

    /// Deletes what interrupted saves and deletions left, those of the trained model and of the metrics included, and
    /// says what that was. No save may be under way.
    ///
    /// # Errors
    /// Where something cannot be deleted.
    pub fn clean(&self) -> Result<Vec<PathBuf>> {
        self.put_back()?;
        let mut removed = Vec::new();
        for (name, path) in names_in(&self.output_dir)? {
            if let Some(FolderName::Temporary { .. }) = FolderName::parse(&name) {
                remove_folder(&path)?;
            } else if [BEST_TEMPORARY, METRICS_TEMPORARY].contains(&name.as_str()) {
                fs::remove_file(&path).map_err(|e| CheckpointError::io(&path, e))?;
            } else {
                continue;
            }
            removed.push(path);
        }
        removed.extend(tg_llava_core::weights::clean(&self.output_dir)?);
        Ok(removed)
    }

    fn join(&self, name: FolderName) -> PathBuf {
        self.output_dir.join(name.to_string())
    }

    fn temporary(&self, purpose: Purpose, step: usize) -> PathBuf {
        self.join(FolderName::temporary(purpose, step))
    }

    /// Checkpoints with a readable manifest, the one saved last at the end, and those without.
    fn listed(&self) -> Result<(Vec<Listed>, Vec<Damaged>)> {
        let (mut listed, mut damaged) = (Vec::new(), Vec::new());
        for (name, path) in names_in(&self.output_dir)? {
            let Some(FolderName::Checkpoint(named)) = FolderName::parse(&name) else { continue };
            match Manifest::read(&path) {
                Ok(Manifest { step: found, .. }) if named != found => {
                    damaged.push(Damaged { path, damage: Damage::Step { named, found } });
                }
                Ok(manifest) => listed.push(Listed { manifest, path }),
                Err(damage) => damaged.push(Damaged { path, damage }),
            }
        }
        listed.sort_by_key(|listed| (listed.manifest.saved, listed.manifest.step));
        Ok((listed, damaged))
    }

    /// Gives a finished folder its name.
    fn put_in_place(&self, finished: &Unfinished, step: usize) -> Result<PathBuf> {
        let path = self.path_of(step);
        let replaced = self.temporary(Purpose::Replaced, step);
        remove_folder(&replaced)?;
        let made_room = match fs::rename(&path, &replaced) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(CheckpointError::io(&path, error)),
        };
        if let Err(error) = fs::rename(&finished.path, &path) {
            if made_room {
                // The first error is the one to tell; opening the store again puts it back as well.
                let _ = fs::rename(&replaced, &path);
            }
            return Err(CheckpointError::io(&path, error));
        }
        sync_folder(&self.output_dir)?;
        if made_room {
            self.remove(step, &replaced)?;
        }
        Ok(path)
    }

    /// Finishes or undoes replacements that a crash interrupted.
    fn put_back(&self) -> Result<()> {
        for (name, path) in names_in(&self.output_dir)? {
            if let Some(FolderName::Temporary { purpose: Purpose::Replaced, step, .. }) =
                FolderName::parse(&name)
            {
                let target = self.path_of(step);
                if target.exists() {
                    self.remove(step, &path)?;
                } else {
                    fs::rename(&path, &target).map_err(|e| CheckpointError::io(&target, e))?;
                    sync_folder(&self.output_dir)?;
                }
            }
        }
        Ok(())
    }

    /// What was marked as the best, whether or not its checkpoint is whole.
    ///
    /// # Errors
    /// Where `best.json` cannot be read.
    pub fn best_record(&self) -> Result<Option<Best>> {
        match read_versioned(&self.output_dir.join(BEST_FILE), BEST_VERSION) {
            Ok(best) => Ok(Some(best)),
            Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rotate(&self) -> Rotation {
        let mut rotation = Rotation::default();
        let Some(keep) = self.keep else { return rotation };
        // Without knowing which one is the best, none may go.
        let steps = match self.best_record().and_then(|best| Ok((best, self.listed()?.0))) {
            Ok((best, listed)) => {
                let steps: Vec<_> = listed.iter().map(|listed| listed.manifest.step).collect();
                beyond_limit(&steps, keep, best.map(|best| best.step))
            }
            Err(problem) => {
                rotation.problems.push(problem);
                return rotation;
            }
        };
        for step in steps {
            let path = self.path_of(step);
            match self.remove(step, &path) {
                Ok(()) => rotation.removed.push(path),
                Err(problem) => rotation.problems.push(problem),
            }
        }
        rotation
    }

    /// Deletes a folder of a step so that it is never there in part.
    fn remove(&self, step: usize, path: &Path) -> Result<()> {
        let removed = self.temporary(Purpose::Removed, step);
        remove_folder(&removed)?;
        fs::rename(path, &removed).map_err(|e| CheckpointError::io(path, e))?;
        sync_folder(&self.output_dir)?;
        remove_folder(&removed)
    }
}

/// A folder that is being written; what is left of it goes when this is dropped.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    fn create(path: PathBuf) -> Result<Self> {
        remove_folder(&path)?;
        fs::create_dir_all(&path).map_err(|e| CheckpointError::io(&path, e))?;
        Ok(Self { path })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it is in place there is nothing here; otherwise the error that led here is the one to tell.
        let _ = fs::remove_dir_all(&self.path);
    }
}
