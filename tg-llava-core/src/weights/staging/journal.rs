use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};
use crate::weights::not_finite::NotFinite;
use crate::weights::origin::Origin;
use crate::weights::write::NewFile;

/// Name of the file in the folder of the new files.
pub(super) const JOURNAL: &str = ".journal";

/// How far the new files are, so that a start after a kill goes on behind it.
///
/// It is a file beside them, which is replaced as a whole each time. Nothing of this is flushed to the disk before the commit: what a
/// power cut takes of a file is noticed by its hash, and written again.
pub(in crate::weights) struct Journal {
    folder: PathBuf,
    state: State,
    /// Bytes of a file between two entries.
    step: u64,
    not_finite: NotFinite,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::weights) struct State {
    pub origin: Origin,
    /// By name.
    pub(super) files: BTreeMap<String, Entry>,
    /// Keys in these files that hold values that are not finite.
    pub not_finite: Vec<String>,
}

/// How far a file is: always behind its header or one of its tensors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub bytes: u64,
    /// XXH3-128 of these bytes, in hex.
    hash: String,
}

impl State {
    /// Nothing is there.
    pub fn new(origin: Origin) -> Self {
        Self { origin, files: BTreeMap::new(), not_finite: Vec::new() }
    }

    /// Those of the save whose new files are in `folder`; none where it has none that can be read.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(JOURNAL)).ok()?).ok()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|entry| entry.bytes).sum()
    }
}

impl Journal {
    /// A journal of the new files in `folder` that goes on from `state`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn open(folder: &Path, state: State) -> Result<Self> {
        let not_finite = NotFinite::default();
        let journal = Self { folder: folder.to_path_buf(), state, step: u64::MAX, not_finite };
        journal.save()?;
        Ok(journal)
    }

    /// With an entry after so many bytes of a file at the latest, or after the tensor that they end in.
    pub fn with_step(self, step: u64) -> Self {
        Self { step, ..self }
    }

    /// Which adds what it knows to `not_finite`, and states what is added to that.
    pub fn with_not_finite(self, not_finite: &NotFinite) -> Self {
        not_finite.add(self.state.not_finite.iter().cloned());
        Self { not_finite: not_finite.clone(), ..self }
    }

    /// Writes `new` behind what is there of it. `written` is told how many bytes of tensors there are more.
    ///
    /// # Errors
    /// As [`write_safetensors`](crate::weights::write_safetensors). What the journal speaks of stays.
    pub fn write(&mut self, new: NewFile<'_>, written: &mut dyn FnMut(u64)) -> Result<()> {
        let path = new.path().to_path_buf();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let failed = |e| Error::io(&path, e);
        let (kept, mut hash) = self.kept(&name, &new.header);
        let mut file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        file.set_len(kept).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        if kept == 0 {
            file.write_all(&new.header).map_err(failed)?;
            hash.update(&new.header);
        }
        let (mut place, end) = (new.header.len() as u64, new.byte_len());
        written(kept.saturating_sub(place));
        let mut entered = kept;
        for tensor in new.tensors() {
            place += tensor.byte_len();
            if place <= kept {
                continue;
            }
            let values = tensor.read()?;
            file.write_all(&values).map_err(failed)?;
            hash.update(&values);
            if place - entered >= self.step || place == end {
                entered = place;
                file.flush().map_err(failed)?;
                self.enter(&name, place, &hash)?;
            }
            written(values.len() as u64);
        }
        file.flush().map_err(failed)
    }

    /// Bytes of the file called `name`, which begins with `header`, that are as they were entered; and the hash of these.
    fn kept(&self, name: &str, header: &[u8]) -> (u64, Xxh3Default) {
        let read = |entry: &Entry| {
            let mut hash = Xxh3Default::new();
            let mut file = File::open(self.folder.join(name)).ok()?.take(entry.bytes);
            let mut chunk = vec![0; header.len()];
            file.read_exact(&mut chunk).ok().filter(|()| chunk == header)?;
            hash.update(&chunk);
            chunk.resize(1 << 20, 0);
            loop {
                match file.read(&mut chunk).ok()? {
                    0 => break,
                    count => hash.update(&chunk[..count]),
                }
            }
            (file.limit() == 0 && hex(&hash) == entry.hash).then_some((entry.bytes, hash))
        };
        self.state.files.get(name).and_then(read).unwrap_or_else(|| (0, Xxh3Default::new()))
    }

    /// States how far a file is.
    fn enter(&mut self, name: &str, bytes: u64, hash: &Xxh3Default) -> Result<()> {
        self.state.files.insert(name.to_owned(), Entry { bytes, hash: hex(hash) });
        self.state.not_finite = self.not_finite.keys();
        self.save()
    }

    fn save(&self) -> Result<()> {
        let (path, new) = (self.folder.join(JOURNAL), self.folder.join(format!("{JOURNAL}.new")));
        let text = serde_json::to_vec(&self.state).map_err(|e| Error::json(&path, e))?;
        fs::write(&new, text).map_err(|e| Error::io(&new, e))?;
        fs::rename(&new, &path).map_err(|e| Error::io(&path, e))
    }
}

fn hex(hash: &Xxh3Default) -> String {
    format!("{:032x}", hash.digest128())
}
