//! A checkpoint written anew, tensor by tensor: with its adapter added, in another number format, or with its decoder in fewer bits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use serde_json::Value;

use super::adapter::Branch;
use super::card::{self, Provenance};
use super::convert::read_as;
use super::encode::{encode, torch_name};
use super::matrix_format::MatrixFormat;
use super::save::{PendingTensor, Save, SaveOptions, copy_small_files, reference_tensors, write_shards};
use super::{
    Adapter, Component, Encoding, QuantisedTensor, StoredDType, StoredTensor, TensorSource, WeightsError,
    base_of, folder_has_bridges, is_unused_key, open_sources,
};
use crate::config::{ModelConfig, locate_tower, read_json, read_model_config_over, write_model_config};
use crate::error::Result;
use crate::nn::cast_to;
use crate::quant::MatrixSite;

/// How a checkpoint is written anew.
#[derive(Debug, Clone)]
pub struct MergeOptions<'a> {
    /// The decoder, a folder or a GGUF file, where it is not the one that the checkpoint has or names.
    pub base: Option<&'a Path>,
    /// Number format of the result; `None` leaves each tensor's as it is.
    pub dtype: Option<DType>,
    /// What the adapter is added to: the base's matrices as they are ([`Encoding::Floats`]), or as this encoding gives them back, which an
    /// adapter of QLoRA was trained over.
    pub base_through: Encoding,
    /// Where the products are computed.
    pub device: &'a Device,
    /// Files grow up to this many bytes of tensors.
    pub max_shard_bytes: u64,
    /// What becomes of another model in the folder of the result.
    pub existing: ExistingModel,
}

/// What becomes of a model in a folder that is written into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExistingModel {
    /// Nothing is written.
    #[default]
    Refuse,
    /// It goes.
    Replace,
}

/// Writes the adapter in `dir`, added to the decoder that it lies over, into `out` as a whole checkpoint with the reference's keys: tensor
/// by tensor, so that memory holds one of them at a time.
///
/// # Errors
/// Where `dir` holds no adapter, a file is missing or damaged, keys and shapes differ from what the config describes, or `out` cannot be
/// written, is one of the folders that are read, or holds another model that is to stay.
pub fn merge_adapter(dir: &Path, out: &Path, options: &MergeOptions<'_>) -> Result<Converted> {
    if !Adapter::is_in(dir) {
        let reason =
            "holds no adapter: adapter_config.json and adapter_model.safetensors are not there".into();
        return Err(WeightsError::Damaged { path: dir.to_path_buf(), reason }.into());
    }
    convert_checkpoint(dir, out, options, Encoding::Floats)
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Converted {
    /// Matrices that an adapter was added to.
    pub merged: usize,
    /// Matrices that are quantised, with the format that was asked for.
    pub quantised: Vec<QuantisedTensor>,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Keys that hold NaN or infinite values, those that are too large for the number format among them.
    pub not_finite: Vec<String>,
}

/// Writes the checkpoint in `dir` into `out` as a whole one: its adapter added, its decoder's matrices as `encoding` says, and a card
/// that says where it comes from. Memory holds one tensor at a time; a process that is killed meanwhile leaves `out` as
/// [`save_model`](super::save_model) does.
///
/// # Errors
/// Where a file is missing or damaged, keys and shapes differ from what the config describes, or `out` cannot be written, is one of
/// the folders that are read, or holds another model that is to stay.
pub fn convert_checkpoint(
    dir: &Path,
    out: &Path,
    options: &MergeOptions<'_>,
    encoding: Encoding,
) -> Result<Converted> {
    let base = base_of(dir, options.base)?;
    let decoder = base.as_deref().unwrap_or(dir);
    let config = read_model_config_over(dir, base.as_deref())?;
    let towers = tower_folders(&config, dir, base.as_deref());
    let read = [dir, decoder].into_iter().chain(towers.values().map(PathBuf::as_path));
    check_place(out, read, options.existing)?;
    let source = open_sources(dir, &config, base.as_deref())?;
    let expected = reference_tensors(&config.init(options.device)?);
    let not_finite = NotFinite::default();
    let (tensors, merged) = merged_tensors(&source, expected, (&config, options), &not_finite)?;

    let floats = options.dtype.map_or("as it was", torch_name);
    let (tensors, quantised) = encode(tensors, encoding, config.llm.num_hidden_layers);
    let bytes = tensors.values().map(|tensor| tensor.byte_len() as u64).sum();

    // What an adapter or stage-1 files lie over has the tokenizer, a GGUF file has not.
    let template = if TensorSource::folder_has_weights(dir) || !decoder.is_dir() { dir } else { decoder };
    let save =
        SaveOptions { max_shard_bytes: options.max_shard_bytes, template: Some(template.to_path_buf()) };
    let save = Save::begin(out, &save)?;
    let own = dir.join("config.json");
    let keys = if own.is_file() { Some(read_json(&own)?) } else { save.base.clone() };
    let keys = keys.map(|keys| stated(keys, &config, options.dtype, encoding));
    let about = Provenance { source: dir, base: base.as_deref(), merged, quantised: &quantised, floats };
    card::write(&about, save.path())?;
    write_model_config(&config, keys, save.path())?;
    for (tower, folder) in towers {
        let there = save.path().join(tower).join("config.json").is_file();
        if let (false, Some(name)) = (there, Path::new(tower).file_name()) {
            copy_small_files(&folder, &save.path().join(name))?;
        }
    }
    write_shards(tensors, save.path(), options.max_shard_bytes)?;
    save.commit()?;
    let not_finite = not_finite.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
    Ok(Converted { merged, quantised, bytes, not_finite })
}

/// The folders of the towers that `config` names; those that are nowhere are left out.
fn tower_folders<'a>(config: &'a ModelConfig, dir: &Path, base: Option<&Path>) -> BTreeMap<&'a str, PathBuf> {
    let names = config.multimodal.iter().flat_map(|mm| [&*mm.towers.vision, &*mm.towers.text]);
    names.filter_map(|name| Some((name, locate_tower(dir, base, name)?))).collect()
}

/// Refuses a folder that is one of those that are `read`, and one that holds another model, unless that may go.
fn check_place<'a>(
    out: &Path,
    read: impl IntoIterator<Item = &'a Path>,
    existing: ExistingModel,
) -> Result<()> {
    let refused =
        |reason: &str| Err(WeightsError::Write { path: out.to_path_buf(), reason: reason.into() }.into());
    let real = |path: &Path| path.canonicalize().ok();
    let own = real(out);
    if own.is_some() && read.into_iter().any(|read| real(read) == own) {
        return refused("the result would take the place of what it is made of; choose another folder");
    }
    let holds_model = out.join("config.json").is_file()
        || TensorSource::folder_has_weights(out)
        || folder_has_bridges(out)
        || Adapter::is_in(out);
    match holds_model && existing == ExistingModel::Refuse {
        true => refused("it holds another model; choose another folder, or replace that model (--force)"),
        false => Ok(()),
    }
}

/// A config.json's keys with what they say of number formats replaced.
fn stated(mut keys: Value, config: &ModelConfig, dtype: Option<DType>, encoding: Encoding) -> Value {
    let Some(map) = keys.as_object_mut() else { return keys };
    map.remove("quantization_config");
    if let Some(dtype) = dtype {
        map.remove("dtype");
        map.insert("torch_dtype".into(), torch_name(dtype).into());
    }
    let floats = dtype.map_or("float32", torch_name);
    let parts = [Component::VisionTower, Component::TextTower].map(Component::name);
    let bridges = Component::BRIDGES.into_iter().filter_map(Component::bridge_stem);
    let parts = parts.into_iter().chain(bridges).filter(|_| config.multimodal.is_some());
    let skipped: Vec<&str> = ["lm_head"].into_iter().chain(parts).collect();
    if let Some(quantization) = encoding.config(floats, &skipped) {
        map.insert("quantization_config".into(), quantization);
    }
    keys
}

/// Keys of what was written with values that are not finite.
type NotFinite = Arc<Mutex<BTreeSet<String>>>;

/// What is written, and how many matrices the adapter changes; `not_finite` is filled while it is written.
fn merged_tensors(
    source: &TensorSource,
    expected: BTreeMap<String, PendingTensor>,
    (config, options): (&ModelConfig, &MergeOptions<'_>),
    not_finite: &NotFinite,
) -> Result<(BTreeMap<String, PendingTensor>, usize)> {
    let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
    let tied = config.llm.tie_word_embeddings;
    let mut unknown: Vec<String> = source
        .iter()
        .filter(|(key, _)| {
            !(expected.contains_key(*key) || is_unused_key(key) || (tied && *key == "lm_head.weight"))
        })
        .map(|(key, stored)| format!("{key} (in {})", stored.path.display()))
        .collect();
    let adapter = source.adapter().cloned().map(Arc::new);
    let num_layers = config.llm.num_hidden_layers;
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
        merged += usize::from(branch.is_some());
        // What the file holds in that encoding is what it gives back.
        let through =
            MatrixSite::of_key(&key).filter(|site| !options.base_through.keeps(*site, stored.dtype));
        let through =
            through.and_then(|site| options.base_through.choose(site, num_layers, *stored.shape.last()?));
        let shape = stored.shape.clone();
        let written = Written {
            branch: branch.map(|branch| (branch.a.clone(), branch.b.clone(), branch.scale)),
            stored: stored.clone(),
            through: through.map(|choice| choice.format),
            dtype,
            device: options.device.clone(),
        };
        let (not_finite, named) = (Arc::clone(not_finite), key.clone());
        let read = move || {
            let (data, finite) = written.values()?;
            if !(finite && is_finite(&data)) {
                not_finite.lock().unwrap_or_else(PoisonError::into_inner).insert(named.clone());
            }
            Ok(data)
        };
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

/// A tensor that is about to be written.
struct Written {
    stored: StoredTensor,
    /// A and B of what an adapter adds, and the factor on their product.
    branch: Option<(StoredTensor, StoredTensor, f64)>,
    /// The format that the base's values go through before that.
    through: Option<MatrixFormat>,
    dtype: DType,
    device: Device,
}

impl Written {
    /// The values, and whether those of the files are finite.
    fn values(&self) -> Result<(TensorData, bool)> {
        let Self { stored, dtype, device, .. } = self;
        let branch = self.branch.as_ref().map(|(a, b, scale)| Branch { a, b, scale: *scale });
        let (base, finite) = match (self.through, &branch) {
            (None, None) => return read_as(stored, *dtype),
            (None, Some(_)) => read_as(stored, DType::F32)?,
            (Some(format), _) => {
                let (matrix, finite) = format.read(stored, None, device)?;
                let [rows, columns] = matrix.shape();
                let mut values = vec![0.0; rows * columns];
                matrix.dequantise_rows(0..rows, &mut values);
                (TensorData::new(values, [rows, columns]), finite)
            }
        };
        let base = Tensor::<2>::from_data(base, (device, DType::F32));
        let (merged, branch_finite) = match branch {
            Some(branch) => branch.added_to(base)?,
            None => (base, true),
        };
        Ok((cast_to(merged, *dtype).into_data(), finite && branch_finite))
    }
}

/// Whether all values are numbers: what is finite in a file may be too large for another format.
fn is_finite(data: &TensorData) -> bool {
    match data.dtype() {
        DType::F16 => data.as_slice::<f16>().is_ok_and(|values| values.iter().all(|value| value.is_finite())),
        DType::BF16 => {
            data.as_slice::<bf16>().is_ok_and(|values| values.iter().all(|value| value.is_finite()))
        }
        _ => data.as_slice::<f32>().is_ok_and(|values| values.iter().all(|value| value.is_finite())),
    }
}
