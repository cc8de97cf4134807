use std::path::PathBuf;

use crate::config::ConfigError;
use crate::data::DataError;

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The samples cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The start's files cannot be used.
    #[error(transparent)]
    Model(#[from] tg_llava_core::Error),
    /// The start is a plain decoder, and no tower is named.
    #[error(
        "model.vision_tower: {path} is a plain decoder, so the tower must be named: a folder with a CLIP or SigLIP \
         checkpoint, such as clip-vit-large-patch14-336"
    )]
    NoTower {
        /// The folder of the start.
        path: String,
    },
    /// A decoder is no preset.
    #[error("{name:?} is no known preset ({presets})")]
    UnknownDecoder {
        /// What was asked for.
        name: String,
        /// The presets that are known.
        presets: String,
    },
    /// A tower is neither a folder, nor in Hugging Face's cache, nor a preset.
    #[error(
        "model.{key} = {name:?}: no folder with a config.json, not in the cache of Hugging Face, and no known preset ({presets})"
    )]
    UnknownTower {
        /// The key of the configuration.
        key: &'static str,
        /// What it names.
        name: String,
        /// The presets that are known.
        presets: String,
    },
    /// An adapter would be trained over another one.
    #[error(
        "model.path = {path:?} holds an adapter itself, over which no other one can be loaded later; merge it into its base with `merge` and \
         start from the result, or remove [lora]"
    )]
    AdapterOverAdapter {
        /// The folder of the start.
        path: PathBuf,
    },
    /// The run would write over what it starts from.
    #[error(
        "output_dir = {output_dir:?} would write into {key} = {path:?}, which the run starts from; choose a folder of \
         its own"
    )]
    WritesWhereItReads {
        /// Where the run writes.
        output_dir: PathBuf,
        /// The key that names what it reads.
        key: &'static str,
        /// The folder that it reads.
        path: PathBuf,
    },
    /// The run would not make a single step.
    #[error("no step to make: {reason}")]
    NoSteps {
        /// Why.
        reason: String,
    },
}

impl From<tg_llava_core::conversation::ConversationError> for StartError {
    fn from(error: tg_llava_core::conversation::ConversationError) -> Self {
        Self::Model(error.into())
    }
}
