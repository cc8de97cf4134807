//! What a run leaves: stage-1 files or a whole Hugging Face folder.

use std::path::{Path, PathBuf};

use tg_llava_core::Result;
use tg_llava_core::config::LoraConfig;
use tg_llava_core::model::TgLlava;
use tg_llava_core::weights::{Component, SaveOptions, save_adapter, save_bridges, save_model};

use crate::engine::TrainedParts;

/// The form in which a trained model is saved.
#[derive(Debug, Clone, PartialEq)]
pub enum SavedForm {
    /// The bridges alone, beside the decoder that they were trained with.
    Bridges,
    /// Everything, the frozen towers too.
    Whole,
    /// The adapter over the decoder in a folder, with the bridges and every other component that was trained.
    Adapter(LoraConfig, PathBuf, Vec<Component>),
}

impl SavedForm {
    /// The smallest form that holds all that was trained, the adapter over the decoder in a folder among it.
    pub fn of(parts: TrainedParts, adapter: Option<(LoraConfig, PathBuf)>, from_scratch: bool) -> Self {
        if let Some((lora, base)) = adapter {
            let trained = |component: &Component| *parts.get(*component) && *component != Component::Llm;
            let whole = Component::ALL.into_iter();
            let whole = whole.filter(|component| component.bridge_stem().is_some() || trained(component));
            return Self::Adapter(lora, base, whole.collect());
        }
        if parts.bridges_only() && !from_scratch { Self::Bridges } else { Self::Whole }
    }
}

/// Writes `model` into `dir`, with the small files of `start`, the folder that it started from.
///
/// # Errors
/// Where a file cannot be written.
pub fn save_trained(
    model: &TgLlava,
    dir: &Path,
    form: SavedForm,
    start: &Path,
    max_shard_bytes: u64,
) -> Result<()> {
    let options = SaveOptions { max_shard_bytes, template: Some(start.to_path_buf()) };
    match form {
        SavedForm::Adapter(lora, base, whole) => save_adapter(model, (&lora, &base), &whole, dir, &options),
        SavedForm::Whole => save_model(model, dir, &options),
        SavedForm::Bridges => save_bridges(model, dir, start, &options),
    }
}
