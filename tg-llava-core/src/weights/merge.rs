//! A checkpoint written anew, tensor by tensor: with its adapter added, in another number format, or with its decoder in fewer bits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde_json::Value;

use super::adapter::Branch;
use super::card::{self, Provenance};
use super::convert::read_as;
use super::encode::{encode, torch_name};
use super::matrix_format::MatrixFormat;
use super::not_finite::{NotFinite, is_finite};
use super::origin::Origin;
use super::save::{PendingTensor, Save, SaveOptions, copy_small_files, reference_tensors};
use super::shards::{byte_len, write_shards};
use super::staging::{Earlier, Staging, finish_moving};
use super::{
    Adapter, Component, Encoding, QuantisedTensor, StoredDType, StoredTensor, TensorSource, WeightsError,
    base_of, folder_has_bridges, is_unused_key, open_sources,
};
use crate::config::{ModelConfig, locate_tower, read_json, read_model_config_over, write_model_config};
use crate::error::{Error, Result};
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

/// What is told while a checkpoint is written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConvertEvent {
    /// There is something of a start that was killed; told before anything is written.
    Earlier(Earlier),
    /// Bytes of tensors that are written.
    Written {
        /// So far, those that were there included.
        bytes: u64,
        /// In the end.
        total: u64,
    },
}

/// Writes the adapter in `dir`, added to the decoder that it lies over, into `out` as a whole checkpoint with the reference's keys, as
/// [`convert_checkpoint`] does.
///
/// # Errors
/// Where `dir` holds no adapter, and as [`convert_checkpoint`].
pub fn merge_adapter(
    dir: &Path,
    out: &Path,
    options: &MergeOptions<'_>,
    told: &mut dyn FnMut(ConvertEvent),
) -> Result<Converted> {
    if !Adapter::is_in(dir) {
        let reason =
            "holds no adapter: adapter_config.json and adapter_model.safetensors are not there".into();
        return Err(WeightsError::Damaged { path: dir.to_path_buf(), reason }.into());
    }
    convert_checkpoint(dir, out, options, Encoding::Floats, told)
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

/// Entries of the journal in a file of [`MergeOptions::max_shard_bytes`].
const ENTRIES: u64 = 16;

/// Writes the checkpoint in `dir` into `out` as a whole one: its adapter added, its decoder's matrices as `encoding` says, and a card
/// that says where it comes from. Memory holds one tensor at a time; a process that is killed meanwhile leaves `out` as
/// [`save_model`](super::save_model) does. What it has written by then stays, and the same call goes on behind it: to the same bytes,
/// so only where options, version and all files that are read are as they were.
///
/// # Errors
/// Where a file is missing or damaged, keys and shapes differ from what the config describes, or `out` cannot be written, is being
/// written by another process, is one of the folders that are read, or holds another model that is to stay.
pub fn convert_checkpoint(
    dir: &Path,
    out: &Path,
    options: &MergeOptions<'_>,
    encoding: Encoding,
    told: &mut dyn FnMut(ConvertEvent),
) -> Result<Converted> {
    let base = base_of(dir, options.base)?;
    let decoder = base.as_deref().unwrap_or(dir);
    let config = read_model_config_over(dir, base.as_deref())?;
    let towers = tower_folders(&config, dir, base.as_deref());
    let read: Vec<&Path> = [dir, decoder].into_iter().chain(towers.values().map(PathBuf::as_path)).collect();
    check_other(out, &read)?;
    let source = open_sources(dir, &config, base.as_deref())?;
    let MergeOptions { dtype, base_through, device, max_shard_bytes, .. } = options;
    let origin = Origin::of(
        &source,
        read,
        format!("{encoding:?}, {dtype:?}, {base_through:?}, {device:?}, {max_shard_bytes}"),
    )?;
    let expected = reference_tensors(&config.init(options.device)?);
    let not_finite = NotFinite::default();
    let (tensors, merged) = merged_tensors(&source, expected, (&config, options), &not_finite)?;

    let floats = options.dtype.map_or("as it was", torch_name);
    let (tensors, quantised) = encode(tensors, encoding, config.llm.num_hidden_layers);
    let converted = Converted { merged, quantised, bytes: byte_len(&tensors), not_finite: Vec::new() };
    if let Some(finished) = finish_moving(out)?.filter(|finished| finished.origin == origin) {
        told(ConvertEvent::Earlier(Earlier::Kept { bytes: converted.bytes }));
        return Ok(Converted { not_finite: finished.not_finite, ..converted });
    }
    check_free(out, options.existing)?;

    // What an adapter or stage-1 files lie over has the tokenizer, a GGUF file has not.
    let template = if TensorSource::folder_has_weights(dir) || !decoder.is_dir() { dir } else { decoder };
    let save =
        SaveOptions { max_shard_bytes: options.max_shard_bytes, template: Some(template.to_path_buf()) };
    let (staging, journal, earlier) = Staging::resume(out, origin)?;
    let mut journal = journal.with_step(options.max_shard_bytes / ENTRIES).with_not_finite(&not_finite);
    earlier.into_iter().for_each(|earlier| told(ConvertEvent::Earlier(earlier)));
    let save = Save::within(staging, &save)?;
    let own = dir.join("config.json");
    let keys = if own.is_file() { Some(read_json(&own)?) } else { save.base.clone() };
    let keys = keys.map(|keys| stated(keys, &config, options.dtype, encoding));
    let about =
        Provenance { source: dir, base: base.as_deref(), merged, quantised: &converted.quantised, floats };
    card::write(&about, save.path())?;
    write_model_config(&config, keys, save.path())?;
    for (tower, folder) in towers {
        let there = save.path().join(tower).join("config.json").is_file();
        if let (false, Some(name)) = (there, Path::new(tower).file_name()) {
            copy_small_files(&folder, &save.path().join(name))?;
        }
    }
    let (mut bytes, total) = (0, converted.bytes);
    write_shards(tensors, save.path(), options.max_shard_bytes, &mut |file| {
        journal.write(file, &mut |more| {
            bytes += more;
            told(ConvertEvent::Written { bytes, total });
        })
    })?;
    save.commit()?;
    Ok(Converted { not_finite: not_finite.keys(), ..converted })
}

/// The folders of the towers that `config` names; those that are nowhere are left out.
fn tower_folders<'a>(config: &'a ModelConfig, dir: &Path, base: Option<&Path>) -> BTreeMap<&'a str, PathBuf> {
    let names = config.multimodal.iter().flat_map(|mm| [&*mm.towers.vision, &*mm.towers.text]);
    names.filter_map(|name| Some((name, locate_tower(dir, base, name)?))).collect()
}

/// Refuses a folder that is one of those that are `read`.
fn check_other(out: &Path, read: &[&Path]) -> Result<()> {
    let real = |path: &Path| path.canonicalize().ok();
    let own = real(out);
    match own.is_some() && read.iter().any(|read| real(read) == own) {
        true => {
            Err(refused(out, "the result would take the place of what it is made of; choose another folder"))
        }
        false => Ok(()),
    }
}

/// Refuses a folder that holds another model, unless that may go.
fn check_free(out: &Path, existing: ExistingModel) -> Result<()> {
    let holds_model = out.join("config.json").is_file()
        || TensorSource::folder_has_weights(out)
        || folder_has_bridges(out)
        || Adapter::is_in(out);
    match holds_model && existing == ExistingModel::Refuse {
        true => Err(refused(
            out,
            "it holds another model; choose another folder, or replace that model (--force)",
        )),
        false => Ok(()),
    }
}

fn refused(out: &Path, reason: &str) -> Error {
    WeightsError::Write { path: out.to_path_buf(), reason: reason.into() }.into()
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
        let (not_finite, named) = (not_finite.clone(), key.clone());
        let read = move || {
            let (data, finite) = written.values()?;
            if !(finite && is_finite(&data)) {
                not_finite.add([named.clone()]);
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
