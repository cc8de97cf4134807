use std::path::Path;

use super::bridges::{self, BridgeWidths};
use super::raw::{RawConfig, RawTgLlava};
use super::tower::{family_of, read_tower_file, text_from_json, vision_from_json};
use super::{in_file, locate_tower};
use crate::config::{
    GuidePadding, MultimodalConfig, ProjectorConfig, SelectFeature, TextTowerConfig, TowerLocation,
    VisionTowerConfig, is_hub_name, tower_preset,
};
use crate::conversation::GuideTurn;
use crate::error::{Error, Result};
use crate::preprocess::{AspectRatio, DetailSource};

/// Bytes of a tower's name or path at most, as for paths on Linux.
const LONGEST_NAME: usize = 4096;

/// The pictures' side of config.json; `None` for a plain decoder.
pub(super) fn from_raw(raw: &RawConfig, dir: &Path, base: Option<&Path>) -> Result<Option<MultimodalConfig>> {
    let Some(vision_name) = raw.mm_vision_tower.clone() else { return Ok(None) };
    // Plain LLaVA folders have no text tower, and so no guide and no detail perceiver.
    let text_name = raw.mm_text_tower.clone();
    let guided = raw.model_type.as_deref().is_some_and(|t| t.ends_with("text_learnable_query"))
        || raw.tg_llava.is_some();
    let path = dir.join("config.json");
    for (key, name) in [("mm_vision_tower", Some(&vision_name)), ("mm_text_tower", text_name.as_ref())] {
        if name.is_some_and(|name| name.len() > LONGEST_NAME) {
            return Err(Error::Config(format!("{}: {key} is no name of a folder", path.display())));
        }
    }
    let tg = raw.tg_llava.clone().unwrap_or_default();
    let mut config = MultimodalConfig {
        vision: vision_config(&tg, (dir, base), &vision_name)?,
        text: None,
        towers: TowerLocation {
            text: text_name.clone().unwrap_or_else(|| vision_name.clone()),
            vision: vision_name,
        },
        guide: None,
        detail: None,
        projector: ProjectorConfig::from_hf(raw.mm_projector_type.as_deref().unwrap_or("linear"))
            .map_err(in_file(&path))?,
        select_layer: raw.mm_vision_select_layer.unwrap_or(-2),
        select_feature: match raw.mm_vision_select_feature.as_deref() {
            None | Some("patch") => SelectFeature::Patch,
            Some("cls_patch") => SelectFeature::ClsPatch,
            Some(other) => {
                return Err(bad(&path, "mm_vision_select_feature", other, "\"patch\" or \"cls_patch\""));
            }
        },
        aspect_ratio: AspectRatio::from_hf(raw.image_aspect_ratio.as_deref()),
        guide_turn: match tg.guide_turn.as_deref() {
            None | Some("last") => GuideTurn::Last,
            Some("first") => GuideTurn::First,
            Some("joined") => GuideTurn::Joined,
            Some(other) => return Err(bad(&path, "guide_turn", other, "\"last\", \"first\" or \"joined\"")),
        },
        guide_padding: match tg.guide_padding.as_deref() {
            None | Some("masked") => GuidePadding::Masked,
            Some("visible") => GuidePadding::Visible,
            Some(other) => return Err(bad(&path, "guide_padding", other, "\"masked\" or \"visible\"")),
        },
        detail_source: match tg.detail_source.as_deref() {
            None | Some("upsampled") => DetailSource::Upsampled,
            Some("native") => DetailSource::Native,
            Some(other) => return Err(bad(&path, "detail_source", other, "\"upsampled\" or \"native\"")),
        },
        use_im_start_end: raw.mm_use_im_start_end.unwrap_or(false),
    };
    let wants_guide = guided && tg.feature_guide.unwrap_or(true);
    let wants_detail = guided && tg.detail_perceiver.unwrap_or(true);
    if wants_guide || wants_detail {
        let text = text_config(&tg, (dir, base), &config.towers.text)?;
        let widths = BridgeWidths {
            vision_tokens: config.num_vision_tokens(),
            vision: config.vision.hidden_size,
            text: text.hidden_size,
            llm: raw.hidden_size.unwrap_or_default(),
        };
        config.guide = wants_guide.then(|| bridges::guide(&tg, widths));
        config.detail = wants_detail.then(|| bridges::detail(&tg, widths));
        config.text = Some(text);
    }
    Ok(Some(config))
}

fn bad(path: &Path, key: &str, value: &str, allowed: &str) -> Error {
    Error::Config(format!("{}: {key} = {value:?}; it must be {allowed}", path.display()))
}

/// The folder and its base, where towers may be.
type Places<'a> = (&'a Path, Option<&'a Path>);

fn vision_config(tg: &RawTgLlava, places: Places<'_>, name: &str) -> Result<VisionTowerConfig> {
    let dir = places.0;
    if let Some(value) = &tg.vision_config {
        return vision_from_json(value, family_of(value), &dir.join("config.json"));
    }
    if let Some(folder) = locate_tower(places.0, places.1, name) {
        let path = folder.join("config.json");
        return read_tower_file(&path)?
            .vision
            .ok_or_else(|| Error::Config(format!("{}: describes no vision tower", path.display())));
    }
    tower_preset(name).map(|(vision, _)| vision).ok_or_else(|| unknown_tower(dir, "mm_vision_tower", name))
}

fn text_config(tg: &RawTgLlava, places: Places<'_>, name: &str) -> Result<TextTowerConfig> {
    let dir = places.0;
    if let Some(value) = &tg.text_config {
        return text_from_json(value, family_of(value), &dir.join("config.json"));
    }
    if let Some(folder) = locate_tower(places.0, places.1, name) {
        let path = folder.join("config.json");
        return read_tower_file(&path)?
            .text
            .ok_or_else(|| Error::Config(format!("{}: describes no text tower", path.display())));
    }
    tower_preset(name).map(|(_, text)| text).ok_or_else(|| unknown_tower(dir, "mm_text_tower", name))
}

/// What to do about a tower whose folder is nowhere.
pub(crate) fn unknown_tower(dir: &Path, key: &str, name: &str) -> Error {
    let base = Path::new(name).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let fetch = match is_hub_name(name) {
        true => format!("Fetch it into Hugging Face's cache (tg-llava-cli fetch {name}), put"),
        false => "Put".to_owned(),
    };
    Error::Config(format!(
        "{}: {key} = {name:?} names no folder with a config.json (looked in the checkpoint folder and beside it). \
         {fetch} the tower's folder at {}, or set {key} to where it is.",
        dir.join("config.json").display(),
        dir.join(base).display()
    ))
}
