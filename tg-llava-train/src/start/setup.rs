//! What is trained: sizes and codecs, before any weight is read.

use std::path::{Path, PathBuf};

use tg_llava_core::config::{
    HubCache, LLM_PRESETS, LoraConfig, MAIN_REVISION, ModelConfig, MultimodalConfig, PaddingSide,
    ProjectorConfig, TOWER_PRESETS, TextTowerConfig, VisionTowerConfig, folder_name, llm_preset, multimodal,
    read_model_config_over, read_tower_configs, reference_to, tower_preset,
};
use tg_llava_core::conversation::Template;
use tg_llava_core::weights::{Adapter, base_of};

pub use tg_llava_core::assistant::Codecs;

use super::{StartError, places};
use crate::config::{Stage, TrainConfig};

/// The model that a run trains, with what encodes its samples.
#[derive(Debug, Clone)]
pub struct ModelSetup {
    /// Sizes and switches.
    pub model: ModelConfig,
    /// Tokenizers and picture processing.
    pub codecs: Codecs,
    /// The layout of conversations.
    pub template: Template,
    /// The folder that the run starts from.
    pub start: PathBuf,
    /// The decoder's folder, where `start` holds stage-1 files alone.
    pub base: Option<PathBuf>,
}

impl ModelSetup {
    /// The folder of the decoder that the run starts from.
    pub fn decoder(&self) -> &Path {
        self.base.as_ref().unwrap_or(&self.start)
    }

    /// The adapter that `config` trains, over the decoder of this start.
    pub fn adapter(&self, config: &TrainConfig) -> Option<LoraConfig> {
        Some(config.lora.as_ref()?.adapter(Some(reference_to(self.decoder()))))
    }

    /// Reads the small files of the start.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or the parts do not fit together.
    pub fn new(config: &TrainConfig) -> Result<Self, StartError> {
        let start = config.model.path.clone();
        let base = base_of(&start, None).ok().flatten();
        let mut model = complete(config, read_model_config_over(&start, base.as_deref())?)?;
        let codecs = Codecs::load(&start, base.as_deref(), &model)?;
        let template = match &config.model.template {
            Some(name) => Template::by_name(name)?.clone(),
            None => {
                let folder = folder_name(&start);
                Template::for_model(model.conversation.as_deref(), &folder, &codecs.tokenizer)?.clone()
            }
        };
        if config.stage == Stage::Finetune {
            model.conversation = Some(template.name.to_owned());
        }
        if config.lora.is_some() && Adapter::is_in(&start) {
            return Err(StartError::AdapterOverAdapter { path: start });
        }
        let setup = Self { model, codecs, template, start, base };
        places::check(config, &setup)?;
        Ok(setup)
    }
}

/// The model that `config` trains over a published decoder, whose files need not be there. Towers are presets as well, or folders.
///
/// # Errors
/// [`StartError::UnknownDecoder`] for an unknown `name`; else as [`ModelSetup::new`].
pub fn preset_model(config: &TrainConfig, name: &str) -> Result<ModelConfig, StartError> {
    let unknown = || StartError::UnknownDecoder { name: name.to_owned(), presets: LLM_PRESETS.join(", ") };
    let decoder = ModelConfig {
        llm: llm_preset(name).ok_or_else(unknown)?,
        multimodal: None,
        conversation: None,
        max_length: config.model.max_length,
        padding_side: PaddingSide::Right,
    };
    complete(config, decoder)
}

/// The model of a start, with towers, bridges and the run's options.
fn complete(config: &TrainConfig, mut model: ModelConfig) -> Result<ModelConfig, StartError> {
    if model.multimodal.is_none() {
        model.multimodal = Some(new_multimodal(config, &model)?);
    } else if let Some(mm) = &mut model.multimodal {
        rename_towers(config, mm);
    }
    apply_options(config, &mut model)?;
    model.validate()?;
    if let Some(lora) = &config.lora {
        lora.check_all_fit(model.llm.num_hidden_layers)?;
    }
    Ok(model)
}

/// Towers and bridges over a plain decoder.
fn new_multimodal(config: &TrainConfig, model: &ModelConfig) -> Result<MultimodalConfig, StartError> {
    let Some(vision_name) = config.model.vision_tower.as_deref() else {
        return Err(StartError::NoTower { path: config.model.path.display().to_string() });
    };
    let text_name = config.model.text_tower.as_deref().unwrap_or(vision_name);
    let (vision, _) = towers("vision_tower", vision_name)?;
    let (_, text) = towers("text_tower", text_name)?;
    let unknown = |key, name: &str| unknown_tower(key, name);
    let vision = vision.ok_or_else(|| unknown("vision_tower", vision_name))?;
    let text = text.ok_or_else(|| unknown("text_tower", text_name))?;
    let mut mm = multimodal(vision, text, vision_name, model.llm.hidden_size);
    rename_towers(config, &mut mm);
    Ok(mm)
}

fn towers(
    key: &'static str,
    name: &str,
) -> Result<(Option<VisionTowerConfig>, Option<TextTowerConfig>), StartError> {
    let cached = HubCache::of_environment().snapshot(name, MAIN_REVISION);
    let folder = [Some(PathBuf::from(name)), cached].into_iter().flatten();
    if let Some(folder) = folder.into_iter().find(|folder| folder.join("config.json").is_file()) {
        return Ok(read_tower_configs(&folder)?);
    }
    let (vision, text) = tower_preset(name).ok_or_else(|| unknown_tower(key, name))?;
    Ok((Some(vision), Some(text)))
}

fn unknown_tower(key: &'static str, name: &str) -> StartError {
    StartError::UnknownTower { key, name: name.to_owned(), presets: TOWER_PRESETS.join(", ") }
}

/// Towers named by the run: as absolute paths, since they count from the working directory.
fn rename_towers(config: &TrainConfig, mm: &mut MultimodalConfig) {
    let place = |name: &str| match Path::new(name).canonicalize() {
        Ok(path) => path.to_string_lossy().into_owned(),
        Err(_) => name.to_owned(),
    };
    if let Some(name) = &config.model.vision_tower {
        mm.towers.vision = place(name);
    }
    if let Some(name) = config.model.text_tower.as_ref().or(config.model.vision_tower.as_ref()) {
        mm.towers.text = place(name);
    }
}

fn apply_options(config: &TrainConfig, model: &mut ModelConfig) -> Result<(), StartError> {
    let options = &config.model;
    model.max_length = options.max_length;
    let Some(mm) = &mut model.multimodal else { return Ok(()) };
    if let Some(kind) = &options.projector_type {
        mm.projector = ProjectorConfig::from_hf(kind)?;
    }
    mm.select_layer = options.select_layer.unwrap_or(mm.select_layer);
    mm.select_feature = options.select_feature.unwrap_or(mm.select_feature);
    mm.guide_turn = options.guide_turn.unwrap_or(mm.guide_turn);
    mm.guide_padding = options.guide_padding.unwrap_or(mm.guide_padding);
    mm.detail_source = options.detail_source.unwrap_or(mm.detail_source);
    mm.use_im_start_end = options.use_im_start_end.unwrap_or(mm.use_im_start_end);
    mm.aspect_ratio = config.data.aspect_ratio;
    if !options.feature_guide {
        mm.guide = None;
    }
    if !options.detail_perceiver {
        mm.detail = None;
    }
    if mm.guide.is_none() && mm.detail.is_none() {
        mm.text = None;
    }
    let tokens = mm.num_vision_tokens();
    if let Some(guide) = &mut mm.guide {
        guide.num_query_tokens = tokens;
        guide.dropout = options.dropout.unwrap_or(guide.dropout);
    }
    if let Some(detail) = &mut mm.detail {
        detail.num_positions = 4 * tokens;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_tower_is_told_with_all_places_where_it_was_sought() {
        let message = towers("vision_tower", "none-such/tower").unwrap_err().to_string();
        for part in ["model.vision_tower = \"none-such/tower\"", "cache of Hugging Face", TOWER_PRESETS[0]] {
            assert!(message.contains(part), "{message}");
        }
    }
}
