//! The defaults of a stage, and a table over them.

use std::path::PathBuf;

use serde::{Deserialize, de::Error};
use tg_llava_core::preprocess::AspectRatio;
use toml::{Table, Value};

use super::{
    DataOptions, ModelOptions, OptimOptions, PerComponent, RunOptions, Stage, TrainConfig, default_seed,
};
use crate::{data::SampleOrder, schedule::Warmup};

/// Of adapters, in the published runs.
const ADAPTER_LR: f64 = 2e-4;

impl TrainConfig {
    /// A run with the defaults of `stage`, those of the published runs.
    pub fn new(stage: Stage) -> Self {
        let (lr, order, aspect_ratio, template) = match stage {
            Stage::Pretrain => (1e-3, SampleOrder::Shuffled, AspectRatio::Square, Some("plain".into())),
            Stage::Finetune => (2e-5, SampleOrder::ModalityLength, AspectRatio::Pad, None),
        };
        Self {
            stage,
            seed: default_seed(),
            output_dir: PathBuf::new(),
            model: ModelOptions { template, ..ModelOptions::default() },
            data: DataOptions { order, aspect_ratio, ..DataOptions::default() },
            train: PerComponent {
                vision_tower: false,
                text_tower: false,
                feature_guide: true,
                detail_perceiver: true,
                projector: true,
                llm: stage == Stage::Finetune,
            },
            lora: None,
            optim: OptimOptions { lr, warmup_ratio: Some(0.03), ..OptimOptions::default() },
            run: RunOptions::default(),
        }
    }

    /// What `given` says, and the defaults of its stage for the rest.
    pub(super) fn over_defaults(given: Table) -> Result<Self, toml::de::Error> {
        // A stage that is none is told with the other values below.
        let stage = given.get("stage").and_then(|stage| Stage::deserialize(stage.clone()).ok());
        let mut defaults = Self::new(stage.unwrap_or(Stage::Pretrain));
        // These follow from other values.
        let said = |table: &str, key: &str| given.get(table).and_then(|table| table.get(key));
        let has = |part: &str| said("model", part).and_then(Value::as_bool).unwrap_or(true);
        defaults.train.feature_guide = has("feature_guide");
        defaults.train.detail_perceiver = has("detail_perceiver");
        defaults.model.text_tower = said("model", "vision_tower").and_then(Value::as_str).map(str::to_owned);
        if given.contains_key("lora") {
            defaults.optim.lr = ADAPTER_LR;
        }
        if said("optim", "warmup_steps").is_some() {
            defaults.optim.warmup_ratio = None;
        }
        let mut table = Table::try_from(defaults).map_err(Error::custom)?;
        overlay(&mut table, given);
        let mut config = Self::deserialize(table)?;
        (config.optim.warmup_ratio, config.optim.warmup_steps) = match config.optim.warmup() {
            Warmup::Ratio(ratio) => (Some(ratio), None),
            Warmup::Steps(steps) => (None, Some(steps)),
        };
        Ok(config)
    }
}

/// Puts the values of `given` into `table`, in the place of those that are there.
fn overlay(table: &mut Table, given: Table) {
    for (key, value) in given {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(given)) => overlay(inner, given),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}
