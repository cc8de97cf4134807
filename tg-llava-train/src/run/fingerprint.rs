//! What must be equal for a run to go on from a checkpoint.

use tg_llava_core::config::model_config_json;

use crate::checkpoint::{Fingerprint, hash_bytes};
use crate::config::{Component, TrainConfig};
use crate::start::{Plan, TrainingData};

/// Everything that decides the numbers of a run, by name. How often it is saved, logged or checked, and in how
/// many threads its data are read, decide none.
pub fn fingerprint(config: &TrainConfig, plan: &Plan, data: &TrainingData) -> Fingerprint {
    let run = &config.run;
    let optim = toml::to_string(&config.optim).unwrap_or_default();
    let trained: Vec<&str> = Component::ALL
        .into_iter()
        .filter(|&component| config.trains(component))
        .map(Component::name)
        .collect();
    let model = model_config_json(&plan.model, None).to_string();
    [
        ("stage", format!("{:?}", config.stage)),
        ("seed", config.seed.to_string()),
        ("model", hash_bytes(model.as_bytes())),
        ("template", plan.template.name.to_owned()),
        ("trained components", trained.join(" ")),
        ("samples", data.len().to_string()),
        ("order", format!("{:?}", config.order())),
        ("batch size", run.batch_size.to_string()),
        ("accumulation", run.accumulation.to_string()),
        ("epochs", run.epochs.to_string()),
        ("max steps", run.max_steps.map_or("none".to_owned(), |steps| steps.to_string())),
        ("dtype", format!("{:?}", run.dtype)),
        ("optimizer", optim.trim().replace('\n', ", ")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
