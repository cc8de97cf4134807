//! An adapter and its base as one checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::adapter::Branch;
use super::convert::read_as;
use super::quantise::nf4;
use super::save::{PendingTensor, Save, SaveOptions, copy_small_files, reference_tensors, write_shards};
use super::{
    Adapter, StoredDType, StoredTensor, TensorSource, WeightsError, base_of, is_block_matrix, is_unused_key,
    open_sources,
};
use crate::config::{locate_tower, read_json, read_model_config_over, write_model_config};
use crate::error::Result;
use crate::nn::cast_to;

/// How an adapter is merged.
#[derive(Debug, Clone)]
pub struct MergeOptions<'a> {
    /// Folder of the decoder, where it is not the one that the adapter names.
    pub base: Option<&'a Path>,
    /// Number format of the result; `None` leaves each tensor's as it is.
    pub dtype: Option<DType>,
    /// What of the base the adapter is added to.
    pub into: MergeBase,
    /// Where the products are computed.
    pub device: &'a Device,
    /// Files grow up to this many bytes of tensors.
    pub max_shard_bytes: u64,
}

/// What an adapter is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MergeBase {
    /// The base's values as they are.
    #[default]
    Full,
    /// The base's block matrices as NF4 gives them back: those that an adapter of QLoRA was trained over.
    Dequantised,
}

/// Writes the adapter in `dir`, added to the decoder that it lies over, into `out` as a whole checkpoint with the reference's keys: tensor
/// by tensor, so that memory holds one of them at a time. Returns how many matrices were changed.
///
/// # Errors
/// Where `dir` holds no adapter, a file is missing or damaged, keys and shapes differ from what the config describes, or `out` cannot be
/// written or is one of the folders that are read.
pub fn merge_adapter(dir: &Path, out: &Path, options: &MergeOptions<'_>) -> Result<usize> {
    if !Adapter::is_in(dir) {
        let reason =
            "holds no adapter: adapter_config.json and adapter_model.safetensors are not there".into();
        return Err(WeightsError::Damaged { path: dir.to_path_buf(), reason }.into());
    }
    let base = base_of(dir, options.base)?;
    let base = base.as_deref().unwrap_or(dir);
    let real = |path: &Path| path.canonicalize().ok();
    if real(out).is_some_and(|out| [dir, base].into_iter().any(|read| real(read) == Some(out.clone()))) {
        let reason = "the result would take the place of what it is made of; choose another folder".into();
        return Err(WeightsError::Write { path: out.to_path_buf(), reason }.into());
    }
    let config = read_model_config_over(dir, Some(base))?;
    let source = open_sources(dir, &config, Some(base))?;
    let expected = reference_tensors(&config.init(options.device)?);
    let (tensors, merged) = merged_tensors(&source, expected, config.llm.tie_word_embeddings, options)?;

    let save = SaveOptions { max_shard_bytes: options.max_shard_bytes, template: Some(base.to_path_buf()) };
    let save = Save::begin(out, &save)?;
    let own = dir.join("config.json");
    let keys = if own.is_file() { Some(read_json(&own)?) } else { save.base.clone() };
    write_model_config(&config, keys, save.path())?;
    for tower in config.multimodal.iter().flat_map(|mm| [&mm.towers.vision, &mm.towers.text]) {
        let folder = locate_tower(dir, tower).or_else(|| locate_tower(base, tower));
        if let (Some(folder), Some(name)) = (folder, Path::new(tower).file_name()) {
            copy_small_files(&folder, &save.path().join(name))?;
        }
    }
    write_shards(tensors, save.path(), options.max_shard_bytes)?;
    save.commit()?;
    Ok(merged)
}

/// What is written, and how many matrices the adapter changes.
fn merged_tensors(
    source: &TensorSource,
    expected: BTreeMap<String, PendingTensor>,
    tied: bool,
    options: &MergeOptions<'_>,
) -> Result<(BTreeMap<String, PendingTensor>, usize)> {
    let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut unknown: Vec<String> = source
        .iter()
        .filter(|(key, _)| {
            !(expected.contains_key(*key) || is_unused_key(key) || (tied && *key == "lm_head.weight"))
        })
        .map(|(key, stored)| format!("{key} (in {})", stored.path.display()))
        .collect();
    let adapter = source.adapter().cloned().map(Arc::new);
    let (mut tensors, mut merged) = (BTreeMap::new(), 0);
    for (key, pending) in expected {
        let Some(stored) = source.get(&key).filter(|stored| stored.dtype != StoredDType::Other) else {
            // Placeholders for the reference's loader.
            if is_unused_key(&key) {
                tensors.insert(key, pending);
            } else {
                missing.push(key);
            }
            continue;
        };
        if stored.shape != pending.shape() {
            let (path, wanted) = (stored.path.display(), pending.shape());
            misshapen.push(format!("{key}: {:?} in {path}, {wanted:?} by config.json", stored.shape));
            continue;
        }
        let branch = match &adapter {
            Some(adapter) => {
                adapter.branch(&key, &stored.shape, (&mut missing, &mut misshapen), &mut used)?
            }
            None => None,
        };
        let dtype = options.dtype.unwrap_or(match stored.dtype {
            StoredDType::F16 => DType::F16,
            StoredDType::BF16 => DType::BF16,
            _ => DType::F32,
        });
        let matrices = branch.map(|branch| (branch.a.clone(), branch.b.clone(), branch.scale));
        merged += usize::from(matrices.is_some());
        let (stored, device) = (stored.clone(), options.device.clone());
        let shape = stored.shape.clone();
        let through_nf4 = options.into == MergeBase::Dequantised && is_block_matrix(&key);
        let read = move || written(&stored, matrices.as_ref(), (dtype, through_nf4), &device);
        tensors.insert(key, PendingTensor::new(shape, dtype, read));
    }
    // Those of layers that are missing or misshapen are not looked at.
    if missing.is_empty() && misshapen.is_empty() {
        unknown.extend(adapter.iter().flat_map(|adapter| adapter.unused(&used)));
    }
    if missing.is_empty() && unknown.is_empty() && misshapen.is_empty() {
        return Ok((tensors, merged));
    }
    Err(WeightsError::Mismatch { missing, unknown, misshapen }.into())
}

/// The values of a tensor as they are written.
fn written(
    stored: &StoredTensor,
    matrices: Option<&(StoredTensor, StoredTensor, f64)>,
    (dtype, through_nf4): (DType, bool),
    device: &Device,
) -> Result<TensorData> {
    let branch = matrices.map(|(a, b, scale)| Branch { a, b, scale: *scale });
    if branch.is_none() && !through_nf4 {
        return Ok(read_as(stored, dtype)?.0);
    }
    let base = match through_nf4 && !stored.dtype.is_quantised() {
        true => nf4_and_back(stored, device)?,
        false => read_as(stored, DType::F32)?.0,
    };
    let base = Tensor::<2>::from_data(base, (device, DType::F32));
    let merged = match branch {
        Some(branch) => branch.added_to(base)?.0,
        None => base,
    };
    Ok(cast_to(merged, dtype).into_data())
}

fn nf4_and_back(stored: &StoredTensor, device: &Device) -> Result<TensorData> {
    let (tensor, _) = nf4(stored, None, device)?;
    let mut values = vec![0.0; stored.num_elements()];
    tensor.dequantise(0, &mut values);
    Ok(TensorData::new(values, stored.shape.clone()))
}
