use std::path::{Path, PathBuf};

use super::folder_name::FolderName;
use super::manifest::Manifest;
use super::{Damage, Damaged, Fingerprint, OPTIMIZER_FILE, Result, TensorFile, TrainState};

/// A checkpoint whose files were all there and unchanged when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    step: usize,
    path: PathBuf,
}

impl Checkpoint {
    /// Verifies the folder `path`, which may lie anywhere: manifest, lengths, hashes. It reads every byte.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Damaged> {
        let path = path.into();
        match Manifest::read(&path).and_then(|manifest| check(&manifest, &path)) {
            Ok(step) => Ok(Self { step, path }),
            Err(damage) => Err(Damaged { path, damage }),
        }
    }

    /// One that another rank has opened, and so verified.
    pub fn verified(step: usize, path: impl Into<PathBuf>) -> Self {
        Self { step, path: path.into() }
    }

    /// The optimizer step after which it was saved.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the run stood, if it is the run that `now` describes, and the entries of `now` that it does not tell.
    /// `assumed` are entries of checkpoints that do not tell them.
    ///
    /// # Errors
    /// Where the file is missing, unreadable or of another version, or the checkpoint is of another run.
    pub fn state(&self, now: &Fingerprint, assumed: Fingerprint) -> Result<(TrainState, Vec<String>)> {
        let mut state = TrainState::read(&self.path)?;
        for (name, value) in assumed {
            state.fingerprint.entry(name).or_insert(value);
        }
        let untold = state
            .check_same_run(now)
            .map_err(|source| super::CheckpointError::OtherRun { path: self.path.clone(), source })?;
        Ok((state, untold))
    }

    /// The optimizer's tensors: a file for each rank that saved them, by rank.
    ///
    /// # Errors
    /// Where a file is missing, or its header is unusable.
    pub fn optimizer(&self) -> Result<Vec<TensorFile>> {
        let whole = self.path.join(optimizer_file(0, 1));
        if whole.is_file() {
            return Ok(vec![TensorFile::open(whole)?]);
        }
        // Whoever saved has as many files as the name of the first one says.
        let ranks = (2..=MOST_RANKS).find(|&ranks| self.path.join(optimizer_file(0, ranks)).is_file());
        let files = (0..ranks.unwrap_or(1)).map(|rank| optimizer_file(rank, ranks.unwrap_or(1)));
        files.map(|name| TensorFile::open(self.path.join(name))).collect()
    }
}

/// More ranks than a node has.
const MOST_RANKS: usize = 1024;

/// Name of the file with the slices of the optimizer's tensors that `rank` of `ranks` has.
pub fn optimizer_file(rank: usize, ranks: usize) -> String {
    match ranks {
        1 => OPTIMIZER_FILE.to_owned(),
        _ => format!("optimizer-{:05}-of-{ranks:05}.safetensors", rank + 1),
    }
}

fn check(manifest: &Manifest, path: &Path) -> Result<usize, Damage> {
    let found = manifest.step;
    if let Some(FolderName::Checkpoint(named)) =
        path.file_name().and_then(|name| name.to_str()).and_then(FolderName::parse)
        && named != found
    {
        return Err(Damage::Step { named, found });
    }
    manifest.check_files(path)?;
    Ok(found)
}
