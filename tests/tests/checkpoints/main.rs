//! Writing and reading checkpoints.

mod continued;
mod converted;
mod damaged;
mod quantised;
mod replaced;
mod sizes;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Tolerance};
use serde_json::Value;
use tg_llava_core::config::{ModelConfig, PaddingSide, llm_preset, multimodal, tiny, tower_preset};
use tg_llava_core::model::TgLlava;
use tg_llava_core::weights::{
    LoadOptions, SaveOptions, TensorSource, load_model, open_bridges, reference_tensors, save_bridges,
    save_model,
};
use tg_llava_core::{Error, weights::WeightsError};
use tg_llava_tests::fixture;

const CASES: [&str; 5] = ["vicuna-tiny", "llama3-tiny", "qwen2-tiny", "linear-tiny", "identity-tiny"];

fn load(dir: &Path) -> Result<TgLlava, Error> {
    Ok(load_model(dir, &Device::flex(), &LoadOptions::default(), &mut |_| {})?.model)
}

/// Bytes of every tensor by key.
fn contents(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let source = TensorSource::from_folder(dir).unwrap();
    source.iter().map(|(k, t)| (k.to_owned(), (t.shape.clone(), t.bytes().unwrap()))).collect()
}

/// Names of the files of a folder.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
