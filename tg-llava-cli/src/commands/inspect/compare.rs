//! The tensors of a folder against those that its config.json asks for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tg_llava_core::weights::{Component, StoredDType, TensorSource, is_adapter_key, is_unused_key};

use super::contents::{Contents, FileEntry, KeyInFile, Misshapen, TensorEntry};

/// What a folder's tensors are compared with.
pub struct Expected {
    /// Shapes by key; `None` where nothing says what should be there.
    pub shapes: Option<BTreeMap<String, Vec<usize>>>,
    /// Whether the head is the embedding, so that a copy of it is skipped.
    pub tied: bool,
}

/// Notes every tensor of `source` in `contents`, and what is wrong with them.
pub fn compare(dir: &Path, source: &TensorSource, expected: &Expected, contents: &mut Contents) {
    let mut files: BTreeMap<PathBuf, FileEntry> = BTreeMap::new();
    let matrices = source.adapter().into_iter().flat_map(|adapter| adapter.matrices().iter());
    for (key, tensor) in source.iter().chain(matrices) {
        let file = relative(dir, &tensor.path);
        files
            .entry(tensor.path.to_path_buf())
            .or_insert_with(|| FileEntry {
                bytes: std::fs::metadata(&**tensor.path).map_or(0, |data| data.len()),
                file: file.clone(),
                tensors: 0,
            })
            .tensors += 1;
        let wanted = expected.shapes.as_ref().map(|shapes| shapes.get(key));
        let used = match wanted {
            // Those of an adapter are compared with the decoder's.
            Some(wanted) => wanted.is_some() || is_adapter_key(key),
            None => !is_unused_key(key),
        };
        if used {
            let part = Component::of_key(key).unwrap_or(Component::Llm);
            contents.parts.entry(part).or_default().add(tensor);
        } else if is_unused_key(key) || (expected.tied && key == "lm_head.weight") {
            contents.unused.push(key.to_owned());
        } else {
            contents.unknown.push(KeyInFile { key: key.to_owned(), file: file.clone() });
        }
        if let Some(Some(shape)) = wanted {
            if *shape != tensor.shape {
                contents.misshapen.push(Misshapen {
                    key: key.to_owned(),
                    found: tensor.shape.clone(),
                    expected: shape.clone(),
                });
            }
            if tensor.dtype == StoredDType::Other {
                contents.not_float.push(format!("{key}: {}", tensor.dtype_name));
            }
        }
        if let Err(error) = tensor.verify() {
            contents.problems.push(error.to_string());
        }
        contents.tensors.push(TensorEntry {
            key: key.to_owned(),
            dtype: tensor.dtype_name.to_lowercase(),
            shape: tensor.shape.clone(),
            file,
            used,
        });
    }
    let wanted = expected.shapes.iter().flat_map(BTreeMap::keys);
    contents.missing = wanted.filter(|key| source.get(key).is_none()).cloned().collect();
    contents.files = files.into_values().collect();
}

fn relative(dir: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(dir).unwrap_or(path).to_path_buf()
}
