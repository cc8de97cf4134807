use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::bnb::{check_method, join_parts};
use super::file::open_file;
use super::{Adapter, Gguf, StoredTensor, WeightsError};
use crate::config::read_json;
use crate::error::{Error, Result};

/// The tensors of one or several files under the keys of a full checkpoint, with no bytes read yet.
#[derive(Debug, Clone, Default)]
pub struct TensorSource {
    tensors: BTreeMap<String, StoredTensor>,
    adapter: Option<Box<Adapter>>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Names of the files that may hold a folder's weights whole, in the order they are looked for.
pub(super) const SINGLE: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// Names of the files that say which shards hold them, in the same order.
pub(super) const INDEXES: [&str; 2] = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];

impl From<Gguf> for TensorSource {
    fn from(file: Gguf) -> Self {
        Self { tensors: file.into_tensors(), adapter: None }
    }
}

impl TensorSource {
    /// The weights of a folder: one file, or the shards that an index names.
    ///
    /// # Errors
    /// [`WeightsError`] where there are none, a shard is missing, or a file is damaged.
    pub fn from_folder(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "no such folder");
            return Err(Error::io(dir, missing));
        }
        check_method(dir)?;
        // As in transformers, PyTorch files count where there is no safetensors file.
        for (single, index) in SINGLE.iter().zip(INDEXES) {
            let (file, index_file) = (dir.join(single), dir.join(index));
            match (file.is_file(), index_file.is_file()) {
                (false, false) => {}
                (true, false) => return Self::from_file(&file),
                (is_file, true) => return Self::from_index(dir, &index_file, is_file.then_some(*single)),
            }
        }
        Err(WeightsError::NoWeights { dir: dir.to_path_buf() }.into())
    }

    /// Whether a folder holds weights at all.
    pub fn folder_has_weights(dir: &Path) -> bool {
        SINGLE.iter().chain(&INDEXES).any(|name| dir.join(name).is_file())
    }

    /// The tensors of one file.
    ///
    /// # Errors
    /// Where the file is not there or damaged.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::joined(open_file(path)?)
    }

    /// Tensors of files, those that are parts of another one joined.
    fn joined(mut tensors: BTreeMap<String, StoredTensor>) -> Result<Self> {
        join_parts(&mut tensors)?;
        Ok(Self { tensors, adapter: None })
    }

    /// The shards that the index at `path` names; `beside` is a file in the folder that holds a whole model.
    fn from_index(dir: &Path, path: &Path, beside: Option<&str>) -> Result<Self> {
        let index: ShardIndex = read_json(path)?;
        let path = path.to_path_buf();
        if let Some(single) = beside.filter(|single| !index.weight_map.values().any(|shard| shard == single))
        {
            let what = "one file, and an index of shards".into();
            return Err(WeightsError::TwoForms { first: dir.join(single), second: path, what }.into());
        }
        let mut by_shard: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (tensor, shard) in &index.weight_map {
            by_shard.entry(shard).or_default().push(tensor);
        }
        let mut source = Self::default();
        for (shard, tensors) in by_shard {
            // A name without folders, as `file_name` gives it back.
            if Path::new(shard).file_name().is_none_or(|name| name != shard) {
                let (index, tensor) = (path, tensors[0].clone());
                return Err(WeightsError::OutsideFolder { index, shard: shard.into(), tensor }.into());
            }
            let file = dir.join(shard);
            if !file.is_file() {
                return Err(WeightsError::MissingShard {
                    index: path,
                    shard: shard.into(),
                    tensors: tensors.len(),
                    first: tensors[0].clone(),
                }
                .into());
            }
            let mut opened = open_file(&file)?;
            for tensor in tensors {
                let stored = opened.remove(tensor).ok_or_else(|| WeightsError::NotInShard {
                    index: path.clone(),
                    shard: shard.into(),
                    tensor: tensor.clone(),
                })?;
                source.tensors.insert(tensor.clone(), stored);
            }
            // Tensors that the index forgot are still checked against the model.
            source.tensors.append(&mut opened);
        }
        // The parts of a tensor may be in several shards.
        Self::joined(source.tensors)
    }

    /// The first key under which the sources hold different tensors, with both.
    ///
    /// # Errors
    /// Where a file cannot give the bytes that have to be compared.
    pub(super) fn conflict_with<'a>(
        &'a self,
        other: &'a Self,
    ) -> Result<Option<(&'a str, &'a StoredTensor, &'a StoredTensor)>> {
        for (key, tensor) in self.iter() {
            if let Some(theirs) = other.get(key)
                && !tensor.equals(theirs)?
            {
                return Ok(Some((key, tensor, theirs)));
            }
        }
        Ok(None)
    }

    /// Adds `other`'s tensors under renamed keys; keys that are already there win, and `None` leaves a
    /// tensor out. So does an adapter that is there.
    pub fn merge(&mut self, other: Self, rename: impl Fn(&str) -> Option<String>) {
        self.adapter = self.adapter.take().or(other.adapter);
        for (key, tensor) in other.tensors {
            if let Some(key) = rename(&key) {
                self.tensors.entry(key).or_insert(tensor);
            }
        }
    }

    /// The adapter whose branches are added to the decoder's matrices as they are loaded.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_deref()
    }

    /// These tensors without an adapter over them.
    pub fn without_adapter(self) -> Self {
        Self { adapter: None, ..self }
    }

    /// These tensors with `adapter` over them.
    pub fn with_adapter(self, adapter: Adapter) -> Self {
        Self { adapter: Some(Box::new(adapter)), ..self }
    }

    pub(super) fn tensors_mut(&mut self) -> impl Iterator<Item = &mut StoredTensor> {
        self.tensors.values_mut()
    }

    /// The tensor under `key`.
    pub fn get(&self, key: &str) -> Option<&StoredTensor> {
        self.tensors.get(key)
    }

    /// Takes the tensor under `key` away, and those of the adapter under `matrices`.
    pub(super) fn remove(&mut self, key: &str, matrices: &BTreeSet<String>) {
        self.tensors.remove(key);
        if let Some(adapter) = &mut self.adapter {
            adapter.forget(matrices);
        }
    }

    /// The files that the tensors are in, those of an adapter included.
    pub(super) fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        let adapter = self.adapter().into_iter().flat_map(|adapter| adapter.matrices().tensors.values());
        self.tensors.values().chain(adapter).for_each(|stored| stored.add_files(&mut files));
        files
    }

    /// All tensors by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(key, tensor)| (key.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}
