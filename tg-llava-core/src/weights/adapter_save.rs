//! What a training with adapters leaves: a folder as PEFT and LLaVA write it.

use std::collections::BTreeMap;
use std::path::Path;

use super::adapter::{ADAPTER_FILE, PEFT_PREFIX, WHOLE_FILE};
use super::pytorch::write_state_dict;
use super::save::{Save, SaveOptions, reference_tensors};
use super::shards::write_file;
use super::{Component, WeightsError};
use crate::config::{ADAPTER_CONFIG, LoraConfig, write_model_config};
use crate::error::{Error, Result};
use crate::model::TgLlava;

/// Writes `config.json`, the adapter of `model` that `lora` describes, and the components in `whole` as a PyTorch file, which the
/// reference's code reads too; `base` is the folder of the decoder. Other weights in `dir` go, as in [`save_model`](super::save_model).
///
/// # Errors
/// Where a file cannot be written, or `dir` is the decoder's own folder, whose weights would go.
pub fn save_adapter(
    model: &TgLlava,
    (lora, base): (&LoraConfig, &Path),
    whole: &[Component],
    dir: &Path,
    options: &SaveOptions,
) -> Result<()> {
    if same_folder(base, dir) {
        let reason =
            "this is the folder of the decoder that the adapter lies over; save it in another".into();
        return Err(WeightsError::Write { path: dir.to_path_buf(), reason }.into());
    }
    let save = Save::begin(dir, options)?;
    let mut config = save.base.clone().unwrap_or_else(|| serde_json::json!({}));
    config["_name_or_path"] = serde_json::json!(lora.base);
    write_model_config(model.config(), Some(config), save.path())?;
    let path = save.path().join(ADAPTER_CONFIG);
    let text = serde_json::to_string_pretty(&lora.to_json()).map_err(|e| Error::json(&path, e))?;
    std::fs::write(&path, text + "\n").map_err(|e| Error::io(&path, e))?;

    let (matrices, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        reference_tensors(model).into_iter().partition(|(key, _)| key.starts_with(PEFT_PREFIX));
    write_file(&save.path().join(ADAPTER_FILE), matrices)?;
    let others =
        others.into_iter().filter(|(key, _)| Component::of_key(key).is_some_and(|c| whole.contains(&c)));
    let others = others.map(|(key, tensor)| (format!("{PEFT_PREFIX}{key}"), tensor)).collect();
    write_state_dict(&save.path().join(WHOLE_FILE), &others)?;
    save.commit()
}

fn same_folder(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}
