//! What must be equal for a run to go on from a checkpoint.

use std::path::PathBuf;

use tg_llava_core::config::{locate_tower, model_config_json};

use crate::checkpoint::{CheckpointError, Fingerprint, hash_bytes, hash_file};
use crate::config::{Component, LoraOptions, OptimOptions, TrainConfig};
use crate::start::{ModelSetup, TrainingData};

/// Files that decide the ids of a text or the pixels of a picture.
const CODEC_FILES: [&str; 9] = [
    "added_tokens.json",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// Everything that decides the numbers of a run on `ranks` devices, by name; the pictures' own files aside, which would take as long as
/// an epoch to read. How often a run is saved, logged or checked, where its files lie, and in how many threads they
/// are read, decide none.
///
/// # Errors
/// Where a file cannot be read.
pub fn fingerprint(
    config: &TrainConfig,
    setup: &ModelSetup,
    data: &TrainingData,
    ranks: usize,
) -> Result<Fingerprint, CheckpointError> {
    let run = &config.run;
    let dealing = run.dealing(ranks);
    let trained: Vec<&str> = Component::ALL
        .into_iter()
        .filter(|&component| *config.train.get(component))
        .map(Component::name)
        .collect();
    let model = model_config_json(&setup.model, None).to_string();
    let digests: Vec<&str> = data.loader.dataset().digests().collect();
    let mut fingerprint: Fingerprint = [
        ("stage", format!("{:?}", config.stage)),
        ("seed", config.seed.to_string()),
        ("model", hash_bytes(model.as_bytes())),
        ("template", setup.template.name.to_owned()),
        ("trained components", trained.join(" ")),
        ("samples", data.len().to_string()),
        ("contents of data.path", hash_bytes(digests.concat().as_bytes())),
        ("order", format!("{:?}", config.data.order)),
        ("batch size", run.batch_size.to_string()),
        // Micro-batches of a step, on however many devices.
        ("accumulation", dealing.micro_batches.to_string()),
        (FILL, fill(dealing.fill)),
        ("epochs", run.epochs.to_string()),
        ("max steps", run.max_steps.map_or("none".to_owned(), |steps| steps.to_string())),
        ("dtype", format!("{:?}", run.dtype)),
        ("optimizer", optimizer(&config.optim)),
        (ADAPTER, adapter(config.lora.as_ref())),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    for (owner, folder) in codec_folders(setup) {
        let names: Vec<&str> = CODEC_FILES.into_iter().filter(|name| folder.join(name).is_file()).collect();
        for name in &names {
            fingerprint.insert(format!("{name} of the {owner}"), hash_file(&folder.join(name))?);
        }
        // One more of them may be read instead of another.
        fingerprint.insert(format!("tokenizer files of the {owner}"), names.join(" "));
    }
    Ok(fingerprint)
}

/// What an epoch is filled up to a multiple of; differs by the number of devices unless `run.global_batch_size` is given.
const FILL: &str = "filled up (see run.global_batch_size)";

fn fill(samples: usize) -> String {
    format!("epochs to multiples of {samples}")
}

/// What learns in the place of the decoder.
const ADAPTER: &str = "adapter";

fn adapter(options: Option<&LoraOptions>) -> String {
    let text = options.map(|options| toml::to_string(options).unwrap_or_default());
    text.map_or_else(|| "none".into(), |text| text.trim().lines().collect::<Vec<_>>().join(", "))
}

/// What holds of checkpoints that do not tell it, since nothing else was possible then.
pub fn assumed() -> Fingerprint {
    [(FILL.to_owned(), fill(1)), (ADAPTER.to_owned(), adapter(None))].into()
}

/// The optimizer's options in their order.
fn optimizer(options: &OptimOptions) -> String {
    let text = toml::to_string(options).unwrap_or_default();
    // Older checkpoints do not name what was the only way then.
    let lines = text.trim().lines().filter(|line| *line != "loss_mean = \"micro_batches\"");
    lines.collect::<Vec<_>>().join(", ")
}

/// Where the tokenizers and the picture processor come from.
fn codec_folders(setup: &ModelSetup) -> Vec<(&'static str, PathBuf)> {
    let mut folders = vec![("start", setup.start.clone())];
    folders.extend(setup.base.clone().map(|base| ("base", base)));
    if let Some(mm) = &setup.model.multimodal {
        let tower = |name: &str| locate_tower(&setup.start, setup.base.as_deref(), name);
        folders.extend(tower(&mm.towers.vision).map(|folder| ("vision tower", folder)));
        folders.extend(tower(&mm.towers.text).map(|folder| ("text tower", folder)));
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::LossMean;

    /// What checkpoints of every version hold: another text would not be resumed.
    #[test]
    fn the_optimizers_entry_stays_as_it_was() {
        let mut options = OptimOptions { lr: 1e-3, warmup_ratio: Some(0.03), ..OptimOptions::default() };
        let entry = "lr = 0.001, weight_decay = 0.0, decay_rule = \"except_norms\", beta1 = 0.9, beta2 = 0.999, \
                     epsilon = 0.00000001, max_grad_norm = 1.0, schedule = \"cosine\", warmup_ratio = 0.03, \
                     on_nan = \"stop\", loss_scale = \"dynamic\", , [lr_of]";
        assert_eq!(optimizer(&options), entry);
        options.loss_mean = LossMean::Tokens;
        assert!(optimizer(&options).contains("loss_mean = \"tokens\""));
    }
}
