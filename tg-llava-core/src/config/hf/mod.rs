//! Reading and writing Hugging Face's config.json, with our sizes under the key `tg_llava`.

mod bridges;
mod generation;
mod llm;
mod multimodal;
mod raw;
mod tower;
mod write;

use std::path::{Path, PathBuf};

pub(crate) use bridges::BridgeWidths;
pub use generation::GenerationDefaults;
pub(crate) use multimodal::unknown_tower;
pub use write::{model_config_json, write_model_config};

use self::raw::RawConfig;
use super::{HubCache, MAIN_REVISION, ModelConfig, PaddingSide, TextTowerConfig, VisionTowerConfig};
use crate::error::{Error, Result, shortened};

/// Context length where config.json does not say where sequences are cut.
const DEFAULT_MAX_LENGTH: usize = 2048;

/// Reads the config.json of a checkpoint folder, and those of its towers where it only names them. Tokens that end
/// an answer are those of generation_config.json as well.
///
/// # Errors
/// Where a file is missing or malformed, a size does not fit, or a tower's sizes are nowhere to be found.
pub fn read_model_config(dir: &Path) -> Result<ModelConfig> {
    read_model_config_over(dir, None)
}

/// [`read_model_config`] of a folder that builds on the decoder in `base`: what is not in `dir`, small files and towers, may be there.
///
/// # Errors
/// As [`read_model_config`].
pub fn read_model_config_over(dir: &Path, base: Option<&Path>) -> Result<ModelConfig> {
    read(dir, base).map_err(|error| match error {
        Error::Config(reason) => Error::Config(shortened(&reason)),
        other => other,
    })
}

fn read(dir: &Path, base: Option<&Path>) -> Result<ModelConfig> {
    let own = dir.join("config.json");
    let of_base = base.map(|base| base.join("config.json")).filter(|path| !own.is_file() && path.is_file());
    let path = of_base.unwrap_or(own);
    let raw: RawConfig = read_json(&path)?;
    let mut llm = llm::from_raw(&raw, &path)?;
    llm.generation_eos_token_ids = GenerationDefaults::read_over(dir, base)?.eos_token_ids;
    let config = ModelConfig {
        llm,
        multimodal: multimodal::from_raw(&raw, dir, base)?,
        conversation: raw.tg_llava.as_ref().and_then(|tg| tg.conversation.clone()),
        max_length: raw.tokenizer_model_max_length.unwrap_or(DEFAULT_MAX_LENGTH),
        padding_side: match raw.tokenizer_padding_side.as_deref() {
            None | Some("right") => PaddingSide::Right,
            Some("left") => PaddingSide::Left,
            Some(other) => {
                return Err(Error::Config(format!(
                    "{}: tokenizer_padding_side = {other:?}; it must be \"right\" or \"left\"",
                    path.display()
                )));
            }
        },
    };
    config.validate().map_err(in_file(&path))?;
    Ok(config)
}

/// Names the file in what is wrong with a configuration.
fn in_file(path: &Path) -> impl Fn(Error) -> Error + '_ {
    move |error| match error {
        Error::Config(reason) => Error::Config(format!("{}: {reason}", path.display())),
        other => other,
    }
}

/// The guide's default sizes.
pub(crate) fn default_guide(widths: BridgeWidths) -> super::FeatureGuideConfig {
    bridges::guide(&raw::RawTgLlava::default(), widths)
}

/// The perceiver's default sizes.
pub(crate) fn default_detail(widths: BridgeWidths) -> super::DetailPerceiverConfig {
    bridges::detail(&raw::RawTgLlava::default(), widths)
}

/// Reads any JSON file into `T`.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::json(path, e))
}

/// The towers that a CLIP or SigLIP folder's config.json describes: both, or one.
///
/// # Errors
/// Where the file is missing, malformed, or of another kind of model.
pub fn read_tower_configs(dir: &Path) -> Result<(Option<VisionTowerConfig>, Option<TextTowerConfig>)> {
    let file = tower::read_tower_file(&dir.join("config.json"))?;
    Ok((file.vision, file.text))
}

/// The folder of a tower that config.json calls `name`, where there is one: the path as it stands, then
/// relative to the checkpoint, then its last component inside or beside the checkpoint, then, for a name on Hugging Face, what
/// its cache holds; and then the same as seen from `base`, which the checkpoint lies over.
pub fn locate_tower(dir: &Path, base: Option<&Path>, name: &str) -> Option<PathBuf> {
    tower_folders(dir, base, name).next()
}

/// Every folder that [`locate_tower`] may find. A checkpoint may have a tower's small files only.
pub(crate) fn tower_folders(dir: &Path, base: Option<&Path>, name: &str) -> impl Iterator<Item = PathBuf> {
    let places = [Some(dir), base].into_iter().flatten().flat_map(|dir| tower_places(dir, name));
    places.filter(|place| place.join("config.json").is_file()).collect::<Vec<_>>().into_iter()
}

fn tower_places(dir: &Path, name: &str) -> Vec<PathBuf> {
    let base = Path::new(name).file_name().map(PathBuf::from);
    let mut places = Vec::new();
    if Path::new(name).is_absolute() {
        places.push(PathBuf::from(name));
    } else {
        places.push(dir.join(name));
    }
    if let Some(base) = base {
        places.push(dir.join(&base));
        places.extend(dir.parent().map(|parent| parent.join(&base)));
    }
    places.extend(HubCache::of_environment().snapshot(name, MAIN_REVISION));
    places
}
