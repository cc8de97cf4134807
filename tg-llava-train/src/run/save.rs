//! What a run leaves: stage-1 files or a whole Hugging Face folder.

use std::path::Path;

use tg_llava_core::Result;
use tg_llava_core::model::TgLlava;
use tg_llava_core::weights::{SaveOptions, save_bridges, save_model};

use crate::engine::TrainedParts;

/// The form in which a trained model is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedForm {
    /// The bridges alone, beside the decoder that they were trained with.
    Bridges,
    /// Everything, the frozen towers too.
    Whole,
}

impl SavedForm {
    /// The smallest form that holds all that was trained.
    pub fn of(parts: TrainedParts, from_scratch: bool) -> Self {
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
        SavedForm::Whole => save_model(model, dir, &options),
        SavedForm::Bridges => {
            let start = start.canonicalize().unwrap_or_else(|_| start.to_path_buf());
            save_bridges(model, dir, &start, &options)
        }
    }
}
