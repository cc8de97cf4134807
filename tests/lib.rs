//! Golden fixtures, runs over the small slice of easy-VQA, and the tests that need the whole workspace; they are in `tests/` beside
//! this file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tg_llava_core::burn::tensor::{DType, Device};
use tg_llava_core::model::TgLlava;
use tg_llava_core::weights::{SaveOptions, reference_tensors, save_model};
use tg_llava_train::config::{Init, LoraOptions, Stage, Steps, TrainConfig};
use tg_llava_train::start::{ModelSetup, load_weights};

/// A golden folder or file by its path under `fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The folder of the examples.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// A run from random weights, with dropout, that saves nothing on its way.
pub fn config(stage: Stage, output_dir: &Path) -> TrainConfig {
    let mut config = TrainConfig::new(stage);
    config.output_dir = output_dir.to_path_buf();
    config.seed = 7;
    config.model.path = examples().join("runs/easy-vqa/model");
    config.model.init = Init::Random;
    config.model.init_std = Some(0.08);
    config.model.dropout = Some(0.1);
    config.model.max_length = 128;
    config.data.path = vec![examples().join("data/easy-vqa/train.json")];
    config.data.image_folder = Some(examples().join("data/easy-vqa/images"));
    config.data.workers = 1;
    config.run.save_steps = Steps::Never;
    config.optim.lr = 1e-3;
    config
}

/// The values of every weight, by the reference's keys.
pub fn weights(model: &TgLlava) -> BTreeMap<String, Vec<f32>> {
    let tensors = reference_tensors(model);
    tensors.into_iter().map(|(key, tensor)| (key, tensor.values().unwrap())).collect()
}

/// A run of an adapter with dropout over the checkpoint in `base`, which [`save_base`] made.
pub fn adapter_config(base: &Path, output_dir: &Path) -> TrainConfig {
    let mut config = config(Stage::Finetune, output_dir);
    config.model.path = base.to_path_buf();
    config.model.init = Init::Checkpoint;
    config.model.init_std = None;
    config.lora = Some(LoraOptions { rank: 4, dropout: 0.2, ..LoraOptions::default() });
    config
}

/// Writes a whole checkpoint of random weights into `dir`.
pub fn save_base(dir: &Path) {
    let config = config(Stage::Finetune, dir);
    let setup = ModelSetup::new(&config).unwrap();
    let started = load_weights(&config, &setup, None, &Device::flex(), DType::F32, &mut |_| {}).unwrap();
    let template = Some(config.model.path);
    save_model(&started.model, dir, &SaveOptions { template, ..SaveOptions::default() }).unwrap();
}

/// The bytes of every weight file in `dir`.
pub fn saved(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors" || e == "bin"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect()
}
