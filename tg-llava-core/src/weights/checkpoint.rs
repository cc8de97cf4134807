use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};

use super::bridges::{bridges_in, folder_has_bridges};
use super::load::{LoadReport, Progress, apply};
use super::names::is_unused_tower_key;
use super::quantise::fill_quantised;
use super::{Adapter, Component, Encoding, Gguf, MapFile, Quantization, TensorSource, WeightsError};
use crate::config::{
    ADAPTER_CONFIG, HubCache, LlmConfig, LoraConfig, MAIN_REVISION, ModelConfig, ProjectorConfig,
    is_hub_name, read_json, read_model_config_over, tower_folders,
};
use crate::error::{Error, Result};
use crate::model::TgLlava;

/// How a checkpoint is read.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The decoder, a folder or a GGUF file: where the checkpoint holds none (stage-1 files, an adapter), or to take the place of its
    /// own.
    pub base: Option<PathBuf>,
    /// Dtype of the weights in memory.
    pub dtype: DType,
    /// The device's largest buffer in bytes, where it may be smaller than embedding and head: these are then held in
    /// pieces ([`crate::config::LlmConfig::vocab_pieces`]).
    pub largest_buffer: Option<u64>,
    /// Formats of the decoder's matrices, where they are not to be floats. They lie in the memory of the CPU, blocks of GGML in that of
    /// `device` where somebody computes with them there ([`use_packed_products`](crate::quant::use_packed_products)).
    pub quantization: Option<Quantization>,
    /// How to show files without reading them into memory: weights of safetensors files that need no conversion stay where the system
    /// has them. Nobody may overwrite such a file in its place while the model is in use; another may take its place.
    pub map_file: Option<MapFile>,
}

impl Default for LoadOptions {
    /// f32, complete checkpoints.
    fn default() -> Self {
        Self { base: None, dtype: DType::F32, largest_buffer: None, quantization: None, map_file: None }
    }
}

/// A model with what loading it found.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: TgLlava,
    /// What was skipped, and what is odd.
    pub report: LoadReport,
}

/// The towers' keys in their own folder and in a full checkpoint.
const TOWERS: [(&str, &str); 2] =
    [("vision_model.", "model.vision_tower.vision_tower."), ("text_model.", "model.text_tower.text_tower.")];

/// Loads a checkpoint folder: a full one, a plain decoder, stage-1 files over a base decoder, or an adapter, which is merged into its
/// base; towers from inside the checkpoint or from their own folders. Quantised weights are computed to the dtype while they are read.
///
/// `progress` is called with the number of values that each tensor brought.
///
/// # Errors
/// Where a file is missing or damaged, or keys and shapes differ from what config.json describes.
pub fn load_model(
    dir: &Path,
    device: &Device,
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Loaded> {
    load_model_while(dir, device, options, &mut |count| {
        progress(count);
        Ok(())
    })
}

/// [`load_model`], as long as `progress` gives no error.
pub(crate) fn load_model_while(
    dir: &Path,
    device: &Device,
    options: &LoadOptions,
    progress: &mut Progress<'_>,
) -> Result<Loaded> {
    let base = base_of(dir, options.base.as_deref())?;
    let mut config = read_model_config_over(dir, base.as_deref())?;
    if let Some(largest) = options.largest_buffer {
        // Quantised tables have at most a byte for a value in one buffer.
        let encoding = options.quantization.map(|quantization| quantization.encoding);
        let quantised = matches!(encoding, Some(Encoding::Ggml(_)));
        config.llm.fit_vocabulary(largest, if quantised { 1 } else { options.dtype.size() });
    }
    let mut source = open_sources(dir, &config, base.as_deref())?;
    if let Some(map) = options.map_file {
        source.map_files(map);
    }
    let mut model = config.init(device)?;
    let quantised = match options.quantization {
        Some(quantization) => fill_quantised(&mut model.llm, &mut source, quantization, progress)?,
        None => LoadReport::default(),
    };
    let (model, rest) = apply(model, &source, options.dtype, &|_| false, progress)?;
    Ok(Loaded { model, report: quantised.and(rest) })
}

/// Opens every file that a checkpoint folder consists of, under the keys of a full checkpoint.
///
/// # Errors
/// As [`load_model`], short of comparing keys with the model.
pub fn open_sources(dir: &Path, config: &ModelConfig, base: Option<&Path>) -> Result<TensorSource> {
    let mut source = bridges_in(dir)?;
    let is_whole = TensorSource::folder_has_weights(dir);
    if is_whole && Adapter::is_in(dir) {
        let (first, second) = (dir.to_path_buf(), dir.join(ADAPTER_CONFIG));
        let what = "a whole model, and an adapter over another".into();
        return Err(WeightsError::TwoForms { first, second, what }.into());
    }
    if is_whole {
        let whole = TensorSource::from_folder(dir)?;
        // Bridges beside a plain decoder complete it. Beside a model that has them they may be a copy of its own;
        // otherwise one of the two is of another run.
        if let Some((key, bridge, other)) = source.conflict_with(&whole)? {
            return Err(WeightsError::TwoForms {
                first: bridge.path.to_path_buf(),
                second: other.path.to_path_buf(),
                what: format!("such as {key}"),
            }
            .into());
        }
        // A decoder that is named apart takes the place of the folder's own.
        let replaced = |key: &str| base.is_some() && Component::of_key(key) == Some(Component::Llm);
        source.merge(whole, |key| (!replaced(key)).then(|| key.to_owned()));
    }
    let decoder = match base {
        None if is_whole => None,
        None => Some(find_base(dir)?),
        Some(base) => Some(base.to_path_buf()),
    };
    if let Some(decoder) = decoder {
        let is_adapter = Adapter::is_in(dir);
        if is_adapter {
            let adapter = Adapter::open(dir)?;
            source.merge(adapter.whole().clone(), |key| Some(key.to_owned()));
            source.merge(bridges_in(&decoder)?, |key| Some(key.to_owned()));
            source = source.with_adapter(adapter);
        }
        source.merge(open_decoder(&decoder, &config.llm)?, |key| Some(key.to_owned()));
        if is_adapter {
            check_bridges(&source, config, (dir, &decoder))?;
        }
    }
    let Some(mm) = &config.multimodal else { return Ok(source) };
    let [vision, text] = TOWERS;
    let towers = [(vision, Some(&mm.towers.vision)), (text, mm.text.as_ref().map(|_| &mm.towers.text))];
    for ((part, prefix), name) in towers {
        let Some(name) = name else { continue };
        let inside = source.iter().any(|(key, _)| key.starts_with(prefix));
        let folder = tower_folders(dir, base, name).find_map(|folder| weights_of_tower(&folder));
        if let (false, Some(folder)) = (inside, folder) {
            source.merge(TensorSource::from_folder(&folder)?, |key| tower_key(part, prefix, key));
        }
    }
    Ok(source)
}

/// The weights of the decoder that `config` describes: of a folder, or of a GGUF file, whose sizes are compared.
fn open_decoder(base: &Path, config: &LlmConfig) -> Result<TensorSource> {
    if base.is_dir() {
        return TensorSource::from_folder(base);
    }
    let gguf = Gguf::open(base)?;
    gguf.check(config)?;
    Ok(gguf.into())
}

/// Refuses an adapter over a decoder where a bridge that the model has is nowhere.
fn check_bridges(source: &TensorSource, config: &ModelConfig, (dir, base): (&Path, &Path)) -> Result<()> {
    let Some(mm) = &config.multimodal else { return Ok(()) };
    let has = |bridge: &Component| match bridge {
        Component::FeatureGuide => mm.guide.is_some(),
        Component::DetailPerceiver => mm.detail.is_some(),
        _ => mm.projector != ProjectorConfig::Identity,
    };
    let absent = |bridge: &Component| !source.iter().any(|(key, _)| key.starts_with(bridge.key_prefix()));
    let lost: Vec<_> =
        Component::BRIDGES.into_iter().filter(|bridge| has(bridge) && absent(bridge)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let bridges = lost.into_iter().map(Component::title).collect::<Vec<_>>().join(", ");
    Err(WeightsError::NoBridges { dir: dir.to_path_buf(), base: base.to_path_buf(), bridges }.into())
}

/// The folder that holds a tower's weights: its own, or the checkpoint that it is a part of.
fn weights_of_tower(folder: &Path) -> Option<PathBuf> {
    let places = [Some(folder), folder.parent()];
    let mut places = places.into_iter().flatten();
    places.find(|place| TensorSource::folder_has_weights(place)).map(Path::to_path_buf)
}

/// The weights of a CLIP or SigLIP folder, under the keys that both towers have in a full checkpoint.
///
/// # Errors
/// Where the folder holds no readable weights.
pub fn open_towers(dir: &Path) -> Result<TensorSource> {
    let mut source = TensorSource::default();
    for (part, prefix) in TOWERS {
        source.merge(TensorSource::from_folder(dir)?, |key| tower_key(part, prefix, key));
    }
    Ok(source)
}

/// A tower folder's key in a full checkpoint; the other tower's keys and unused ones are left out. The folder
/// may be a full checkpoint, whose tower is then taken out of it.
fn tower_key(part: &str, prefix: &str, key: &str) -> Option<String> {
    let other = if part == "text_model." { "vision_model." } else { "text_model." };
    if key.starts_with(prefix) {
        return Some(key.to_owned());
    }
    let of_a_checkpoint = key.starts_with("model.") || key.starts_with("lm_head.");
    if of_a_checkpoint || key.starts_with(other) || is_unused_tower_key(key) {
        return None;
    }
    Some(format!("{prefix}{key}"))
}

/// The folder of the decoder that `dir` builds on: `asked`, or where `dir` holds no decoder the one that [`find_base`] finds.
///
/// # Errors
/// As [`find_base`].
pub fn base_of(dir: &Path, asked: Option<&Path>) -> Result<Option<PathBuf>> {
    match (asked, TensorSource::folder_has_weights(dir)) {
        (Some(base), _) => Ok(Some(base.to_path_buf())),
        (None, true) => Ok(None),
        (None, false) => find_base(dir).map(Some),
    }
}

/// The folder of the decoder that a folder of stage-1 files or an adapter builds on: the one that its config names,
/// inside it or beside it, or in Hugging Face's cache.
///
/// # Errors
/// [`WeightsError::NoWeights`] where `dir` holds neither of them, [`WeightsError::NeedsBase`] where there is no such folder.
pub fn find_base(dir: &Path) -> Result<PathBuf> {
    let (what, file, name) = if Adapter::is_in(dir) {
        ("an adapter", ADAPTER_CONFIG, LoraConfig::read(dir)?.base)
    } else if folder_has_bridges(dir) {
        let config: serde_json::Value = read_json(&dir.join("config.json"))?;
        let name = config.get("_name_or_path").and_then(|v| v.as_str()).map(str::to_owned);
        ("stage-1 files", "config.json", name)
    } else {
        return Err(WeightsError::NoWeights { dir: dir.to_path_buf() }.into());
    };
    let name = name.unwrap_or_default();
    let last = Path::new(&name).file_name().map(PathBuf::from).unwrap_or_default();
    let places = [dir.join(&name), dir.join(&last), dir.parent().map(|p| p.join(&last)).unwrap_or_default()];
    let found = places
        .into_iter()
        .chain(HubCache::of_environment().snapshot(&name, MAIN_REVISION))
        .find(|place| !name.is_empty() && place != dir && TensorSource::folder_has_weights(place));
    found.ok_or_else(|| {
        Error::from(WeightsError::NeedsBase {
            dir: dir.to_path_buf(),
            what,
            file,
            hint: match is_hub_name(&name) {
                true => format!(
                    "fetch it (tg-llava-cli fetch {name}), name it with --base, or put it beside this folder"
                ),
                false => "name it with --base, or put it beside this folder".into(),
            },
            name,
        })
    })
}
