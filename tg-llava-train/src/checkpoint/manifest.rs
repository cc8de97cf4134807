use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::files::{open_to_sync, read_versioned, sync_folder, versioned_json, write_synced};
use super::hash::hash_reader;
use super::{CheckpointError, Damage, Result, hash_bytes};

/// Name of the manifest in a checkpoint.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

const VERSION: u64 = 1;

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) step: usize,
    /// Counts the saves of a run, from 1.
    pub(super) saved: u64,
    /// By path inside the folder, with `/`.
    files: BTreeMap<String, FileRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileRecord {
    bytes: u64,
    xxh3_128: String,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(flatten)]
    manifest: Manifest,
    seal: String,
}

impl Manifest {
    /// Hashes and flushes all that `folder` holds, then writes its manifest.
    pub(super) fn write(folder: &Path, step: usize, saved: u64) -> Result<Self> {
        let mut files = BTreeMap::new();
        record(folder, "", &mut files)?;
        files.remove(MANIFEST_FILE);
        let manifest = Self { step, saved, files };
        let path = folder.join(MANIFEST_FILE);
        let sealed = Sealed { seal: manifest.seal(&path)?, manifest };
        write_synced(&path, &versioned_json(&path, VERSION, &sealed)?)?;
        sync_folder(folder)?;
        Ok(sealed.manifest)
    }

    /// Reads a manifest without a look at the files.
    pub(super) fn read(folder: &Path) -> Result<Self, Damage> {
        let path = folder.join(MANIFEST_FILE);
        let wrong = |error| Damage::Manifest(Box::new(error));
        let sealed: Sealed = match read_versioned(&path, VERSION) {
            Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Damage::NoManifest);
            }
            sealed => sealed.map_err(wrong)?,
        };
        match sealed.manifest.seal(&path).map_err(wrong)? == sealed.seal {
            true => Ok(sealed.manifest),
            false => Err(Damage::Seal),
        }
    }

    /// Bytes of all files together.
    pub(super) fn total_bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// Compares every file with its record: all lengths first, which is quick, then all hashes.
    pub(super) fn check_files(&self, folder: &Path) -> Result<(), Damage> {
        for (name, record) in &self.files {
            if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(Damage::Outside { file: name.clone() });
            }
            let found = std::fs::metadata(folder.join(name)).map_err(|e| unreadable(name, e))?.len();
            if found != record.bytes {
                return Err(Damage::Length { file: name.clone(), expected: record.bytes, found });
            }
        }
        for (name, record) in &self.files {
            let hashed = std::fs::File::open(folder.join(name)).and_then(|mut file| hash_reader(&mut file));
            if hashed.map_err(|e| unreadable(name, e))?.hash != record.xxh3_128 {
                return Err(Damage::Hash { file: name.clone() });
            }
        }
        Ok(())
    }

    fn seal(&self, path: &Path) -> Result<String> {
        let json = serde_json::to_vec(self);
        json.map(|json| hash_bytes(&json))
            .map_err(|source| CheckpointError::Json { path: path.to_path_buf(), source })
    }
}

fn unreadable(name: &str, source: io::Error) -> Damage {
    let file = name.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Damage::Missing { file },
        _ => Damage::Unreadable { file, source },
    }
}

fn record(folder: &Path, prefix: &str, files: &mut BTreeMap<String, FileRecord>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| CheckpointError::io(folder, e))? {
        let entry = entry.map_err(|e| CheckpointError::io(folder, e))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| CheckpointError::io(&path, e))?;
        let name = match entry.file_name().into_string() {
            Ok(name) if kind.is_dir() || kind.is_file() => format!("{prefix}{name}"),
            _ => return Err(CheckpointError::NotPlain { path }),
        };
        if kind.is_dir() {
            record(&path, &format!("{name}/"), files)?;
            continue;
        }
        let mut file = open_to_sync(&path)?;
        let hashed = hash_reader(&mut file).and_then(|hashed| file.sync_all().map(|()| hashed));
        let hashed = hashed.map_err(|e| CheckpointError::io(&path, e))?;
        files.insert(name, FileRecord { bytes: hashed.bytes, xxh3_128: hashed.hash });
    }
    sync_folder(folder)
}
