//! What a training run is told: a TOML file, `--set key=value` on top of it, or LLaVA's own flags.
//!
//! All three become one [`toml::Table`] ([`read_table`], [`parse_table`], [`from_llava_args`], [`set`]), whose keys
//! and values are checked as they come in, so that an error can name the line, the assignment or the flag. The table
//! becomes a [`TrainConfig`] in one step, [`TrainConfig::from_table`], which fills in the stage's defaults;
//! [`TrainConfig::validate`] checks what single values cannot show. Relative paths count from the working directory.

mod component;
mod data;
mod error;
mod keys;
mod llava_flags;
mod lora;
mod model;
mod names;
mod optim;
mod resolve;
mod run;
mod steps;
mod table;
#[cfg(test)]
mod tests;
mod validate;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use component::{Component, PerComponent};
pub use data::{DataOptions, ValidationOptions};
pub use error::ConfigError;
pub use keys::known_keys;
pub use llava_flags::from_llava_args;
pub use lora::{BaseFormat, LoraOptions};
pub use model::{BridgeFiles, Bridges, Init, ModelOptions};
pub use optim::{LossScale, OnNan, OptimOptions};
pub use run::{RunDType, RunOptions};
pub use steps::Steps;
pub use table::{parse_table, read_table, set};

/// Which of the two trainings this is; it decides defaults and the form of what is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Stage 1: the bridges learn, on captions.
    Pretrain,
    /// Stage 2: the bridges and the decoder learn, on instructions.
    Finetune,
}

/// A training run, with the stage's defaults filled in: by [`TrainConfig::from_table`] or [`TrainConfig::new`].
///
/// What is `None` is left out, or stays open until the start or the device is known, as its documentation states.
/// Serde alone does not know a stage's defaults, so a table that leaves keys out is read with `from_table`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Which training this is. Required.
    pub stage: Stage,
    /// Seed of fresh weights, of the order of the samples and of dropout. Default 42.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Folder for checkpoints, logs and the trained model; empty means not given. Required.
    #[serde(default)]
    pub output_dir: PathBuf,
    /// What is trained.
    #[serde(default)]
    pub model: ModelOptions,
    /// What it is trained on.
    #[serde(default)]
    pub data: DataOptions,
    /// Which components learn. Default: feature guide, detail perceiver and projector (as far as the model has
    /// them), in stage 2 the decoder too.
    #[serde(default)]
    pub train: PerComponent<bool>,
    /// Adapters that learn in the place of the decoder. Default: none.
    #[serde(default)]
    pub lora: Option<LoraOptions>,
    /// How the weights are updated.
    #[serde(default)]
    pub optim: OptimOptions,
    /// How long, in which pieces, and what is kept.
    #[serde(default)]
    pub run: RunOptions,
}

fn default_seed() -> u64 {
    42
}

impl TrainConfig {
    /// Reads TOML; `name` stands for the text in errors, such as the file's path.
    ///
    /// # Errors
    /// [`ConfigError`] where the text is not TOML, has a key that does not exist or a value of the wrong kind (with
    /// its line), or names no stage.
    pub fn from_toml(text: &str, name: &str) -> Result<Self, ConfigError> {
        Self::from_table(parse_table(text, name)?)
    }

    /// The run that a table describes, with its stage's defaults for what it leaves out.
    ///
    /// # Errors
    /// [`ConfigError`] where the table names no stage, has a key that does not exist or a value of the wrong kind.
    pub fn from_table(table: toml::Table) -> Result<Self, ConfigError> {
        if !table.contains_key("stage") {
            let what = "set it to \"pretrain\" (stage 1) or \"finetune\" (stage 2)";
            return Err(ConfigError::Missing { key: "stage", what });
        }
        Self::over_defaults(table).map_err(|error| ConfigError::Table { message: error.to_string() })
    }

    /// Whether the decoder's own weights learn, and not an adapter over them.
    pub fn decoder_learns_whole(&self) -> bool {
        self.train.llm && self.lora.is_none()
    }

    /// This run as TOML, from which [`TrainConfig::from_toml`] reads it again.
    ///
    /// # Errors
    /// [`ConfigError::Write`] where a value has no form in TOML: a seed beyond 2^63 - 1, a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string_pretty(self)?)
    }
}
