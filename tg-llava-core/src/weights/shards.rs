//! The weights of a whole model as files: one, or several with an index.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::tensor::DType;

use super::save::PendingTensor;
use super::source::{INDEXES, SINGLE};
use super::write::{NewFile, NewTensor};
use crate::error::{Error, Result};

/// Writes the tensors of a whole model into `dir`, as one file or as shards with their index, which comes last: shards without it
/// are no model. `write` writes a file.
pub(super) fn write_shards(
    tensors: BTreeMap<String, PendingTensor>,
    dir: &Path,
    max_bytes: u64,
    write: &mut dyn FnMut(NewFile<'static>) -> Result<()>,
) -> Result<()> {
    let total = byte_len(&tensors);
    let shards = split(tensors, max_bytes);
    let count = shards.len();
    let mut weight_map = BTreeMap::new();
    for (index, shard) in shards.into_iter().enumerate() {
        let name = match count {
            1 => SINGLE[0].to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        weight_map.extend(shard.keys().map(|key| (key.clone(), name.clone())));
        write(new_file(&dir.join(name), shard)?)?;
    }
    if count > 1 {
        let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        let path = dir.join(INDEXES[0]);
        let text = serde_json::to_string_pretty(&index).map_err(|e| Error::json(&path, e))?;
        std::fs::write(&path, text).map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

/// Bytes of all tensors in files.
pub(super) fn byte_len(tensors: &BTreeMap<String, PendingTensor>) -> u64 {
    tensors.values().map(|tensor| tensor.byte_len() as u64).sum()
}

/// Writes one file.
pub(super) fn write_file(path: &Path, tensors: BTreeMap<String, PendingTensor>) -> Result<()> {
    new_file(path, tensors)?.write()
}

fn split(tensors: BTreeMap<String, PendingTensor>, max_bytes: u64) -> Vec<BTreeMap<String, PendingTensor>> {
    let mut shards = vec![BTreeMap::new()];
    let mut size = 0;
    for (key, tensor) in tensors {
        let bytes = tensor.byte_len() as u64;
        if size > 0 && size + bytes > max_bytes {
            shards.push(BTreeMap::new());
            size = 0;
        }
        size += bytes;
        shards.last_mut().expect("starts with one").insert(key, tensor);
    }
    shards
}

fn new_file(path: &Path, tensors: BTreeMap<String, PendingTensor>) -> Result<NewFile<'static>> {
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let tensors = tensors.into_iter().map(|(key, tensor)| {
        let dtype = match tensor.dtype() {
            DType::F16 => safetensors::Dtype::F16,
            DType::BF16 => safetensors::Dtype::BF16,
            DType::I64 => safetensors::Dtype::I64,
            DType::U8 => safetensors::Dtype::U8,
            DType::I8 => safetensors::Dtype::I8,
            _ => safetensors::Dtype::F32,
        };
        NewTensor::new(key, dtype, tensor.shape().to_vec(), move || tensor.bytes())
    });
    NewFile::new(path, Some(about), tensors)
}
