use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use burn::module::Param;
use burn::tensor::{DType, Tensor, TensorData};
use half::{bf16, f16};

use super::placeholder::{Placeholder, PlaceholderValue, placeholders};
use super::shards::write_shards;
use super::staging::Staging;
use super::write::NewFile;
use super::{ParameterPath, ParameterVisitor, reference_key, visit_parameters};
use crate::config::write_model_config;
use crate::error::{Error, Result};
use crate::model::TgLlava;

/// How a checkpoint is written.
#[derive(Debug, Clone)]
pub struct SaveOptions {
    /// Files grow up to this many bytes of tensors; a larger model is split into shards.
    pub max_shard_bytes: u64,
    /// Folder whose config.json keys and tokenizer files are carried over.
    pub template: Option<PathBuf>,
}

impl Default for SaveOptions {
    /// Shards of 5 GB, as Hugging Face writes them.
    fn default() -> Self {
        Self { max_shard_bytes: 5_000_000_000, template: None }
    }
}

/// A tensor of a checkpoint that is about to be written, read from its device when its turn comes.
pub struct PendingTensor {
    shape: Vec<usize>,
    dtype: DType,
    read: Box<dyn Fn() -> Result<TensorData> + Send + Sync>,
}

impl PendingTensor {
    /// A tensor of `shape` that `read` gives in `dtype`.
    pub(super) fn new(
        shape: Vec<usize>,
        dtype: DType,
        read: impl Fn() -> Result<TensorData> + Send + Sync + 'static,
    ) -> Self {
        Self { shape, dtype, read: Box::new(read) }
    }

    /// Extents as they will stand in the file.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in f32.
    ///
    /// # Errors
    /// [`Error::Request`] where they are no floats; where a file cannot give them.
    pub fn values(&self) -> Result<Vec<f32>> {
        let data = (self.read)()?.convert::<f32>();
        data.try_to_vec::<f32>().map_err(|e| Error::Request(format!("a tensor could not be read: {e:?}")))
    }

    /// The number format in the file.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The values as little-endian bytes.
    ///
    /// # Errors
    /// Where a file cannot give them.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        Ok((self.read)()?.into_bytes().to_vec())
    }

    /// Both as one tensor, `rows` behind the rows of this one.
    fn followed_by(self, rows: Self) -> Self {
        let mut shape = self.shape.clone();
        shape[0] += rows.shape[0];
        let (dtype, whole) = (self.dtype, shape.clone());
        let read = move || {
            let bytes = [self.bytes()?, rows.bytes()?].concat();
            Ok(TensorData::from_bytes_vec(bytes, whole.clone(), dtype))
        };
        Self::new(shape, dtype, read)
    }

    /// Bytes in the file.
    pub(super) fn byte_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// Every tensor of the model under the reference's key and in the reference's shape, the unused ones that
/// the reference's files hold among them.
pub fn reference_tensors(model: &TgLlava) -> BTreeMap<String, PendingTensor> {
    let mm = model.config().multimodal.as_ref();
    let plain_linear = model.config().has_plain_linear_projector();
    let mut collector = Collector { plain_linear, tensors: BTreeMap::new() };
    visit_parameters(model, &mut collector);
    let mut tensors = collector.tensors;
    if let Some(guide) = mm.and_then(|mm| mm.guide.as_ref()) {
        let dtype = model.llm.dtype();
        tensors.extend(placeholders(guide).into_iter().map(|p| (p.key.clone(), pending(p, dtype))));
    }
    tensors
}

/// Writes a Hugging Face folder with the reference's keys: weights, config.json with our block, and the
/// template's tokenizer files. Every other form of weights in `dir` goes, whatever model it was of; a process that is
/// killed meanwhile leaves the old model, the new one, or a folder without config.json.
///
/// # Errors
/// Where a file cannot be written or the template cannot be read; what was there is then as it was, unless files
/// could not be moved to their places. A decoder that is held quantised is not saved.
pub fn save_model(model: &TgLlava, dir: &Path, options: &SaveOptions) -> Result<()> {
    if let Some((site, _)) = model.llm.matrices().find(|(_, matrix)| matrix.quantised().is_some()) {
        let reason = format!("{} is held quantised, and a model is saved as floats", site.key());
        return Err(super::WeightsError::Write { path: dir.to_path_buf(), reason }.into());
    }
    let save = Save::begin(dir, options)?;
    write_model_config(model.config(), save.base.clone(), save.path())?;
    write_shards(reference_tensors(model), save.path(), options.max_shard_bytes, &mut NewFile::write)?;
    save.commit()
}

/// A save that has begun: the template's small files are there, and its config.json is known.
pub(super) struct Save {
    staging: Staging,
    /// What the template's config.json says.
    pub base: Option<serde_json::Value>,
    /// Whether small files of an earlier model in the folder go.
    replaces_small_files: bool,
}

impl Save {
    pub fn begin(dir: &Path, options: &SaveOptions) -> Result<Self> {
        Self::within(Staging::begin(dir)?, options)
    }

    /// The same in a folder for the new files that is there.
    pub fn within(staging: Staging, options: &SaveOptions) -> Result<Self> {
        let mut save = Self { staging, base: None, replaces_small_files: false };
        if let Some(template) = &options.template {
            let mut base: serde_json::Value = crate::config::read_json(&template.join("config.json"))?;
            if let Some(config) = base.as_object_mut() {
                // The template's weights may be quantised; ours are floats.
                config.remove("quantization_config");
            }
            save.base = Some(base);
            // A folder that is its own template keeps its files.
            save.replaces_small_files =
                template.canonicalize().ok() != save.staging.target().canonicalize().ok();
            if save.replaces_small_files {
                carry_over(template, save.path())?;
            }
        }
        Ok(save)
    }

    /// The folder to write into.
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Puts everything in its place.
    pub fn commit(self) -> Result<()> {
        self.staging.commit(if self.replaces_small_files { &CARRIED } else { &[] })
    }
}

/// Files of a checkpoint that are copied as they are.
const CARRIED: [&str; 10] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
];

/// Copies tokenizer files, and the towers' folders without their weights (those are in the checkpoint).
fn carry_over(from: &Path, to: &Path) -> Result<()> {
    copy_small_files(from, to)?;
    let config: serde_json::Value = crate::config::read_json(&from.join("config.json"))?;
    for key in ["mm_vision_tower", "mm_text_tower"] {
        let name = config.get(key).and_then(serde_json::Value::as_str);
        let Some(name) = name.filter(|name| Path::new(name).is_relative()) else { continue };
        // A name that leads out of the checkpoint is copied inside all the same, where it is found by its last part.
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        let place = if inside { Some(name.as_ref()) } else { Path::new(name).file_name() };
        let Some(place) = place else { continue };
        let (source, target) = (from.join(name), to.join(place));
        if source.join("config.json").is_file() {
            copy_small_files(&source, &target)?;
        }
    }
    Ok(())
}

/// Copies config.json and the files that a save carries over into `to`, which is created where it is missing.
pub(super) fn copy_small_files(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| Error::io(to, e))?;
    for name in CARRIED.iter().chain(&["config.json"]) {
        let file = from.join(name);
        if file.is_file() {
            std::fs::copy(&file, to.join(name)).map_err(|e| Error::io(&file, e))?;
        }
    }
    Ok(())
}

fn pending(placeholder: Placeholder, dtype: DType) -> PendingTensor {
    let Placeholder { shape, value, .. } = placeholder;
    let count: usize = shape.iter().product();
    let extents = shape.clone();
    let fill = if value == PlaceholderValue::Ones { 1.0 } else { 0.0 };
    let dtype = if value == PlaceholderValue::Range { DType::I64 } else { dtype };
    let read = move || {
        Ok(match dtype {
            DType::I64 => TensorData::new((0..count as i64).collect::<Vec<_>>(), extents.clone()),
            DType::F16 => TensorData::new(vec![f16::from_f32(fill); count], extents.clone()),
            DType::BF16 => TensorData::new(vec![bf16::from_f32(fill); count], extents.clone()),
            _ => TensorData::new(vec![fill; count], extents.clone()),
        })
    };
    PendingTensor::new(shape, dtype, read)
}

struct Collector {
    plain_linear: bool,
    tensors: BTreeMap<String, PendingTensor>,
}

impl ParameterVisitor for Collector {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        let transposed = path.is_linear_weight();
        let mut shape = param.lazy_shape().to_vec();
        if transposed {
            shape.reverse();
        }
        // Asking a lazy parameter for its dtype would allocate it; a fresh one has the device's default.
        let dtype = match param.is_initialized() {
            true => param.dtype(),
            false => param.lazy_device().settings().float_dtype.into(),
        };
        let param = param.clone();
        let read = move || {
            let tensor = param.val();
            let tensor = if transposed { tensor.transpose() } else { tensor };
            Ok(tensor.into_data())
        };
        let key = reference_key(&path.dotted(), self.plain_linear);
        let tensor = PendingTensor::new(shape, dtype, read);
        // Pieces of the vocabulary come one after the other, under one key.
        let tensor = match self.tensors.remove(&key) {
            Some(before) => before.followed_by(tensor),
            None => tensor,
        };
        self.tensors.insert(key, tensor);
    }
}
