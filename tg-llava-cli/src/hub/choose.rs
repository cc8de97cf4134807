//! Which of a model's files are needed.

use std::collections::BTreeMap;
use std::path::{self, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tg_llava_core::config::{ADAPTER_CONFIG, hub_name_of, is_hub_name, locate_tower};
use tg_llava_core::weights::{Component, TensorSource, folder_has_bridges};

use super::ModelName;

/// What of a model is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Configuration and tokenizer, since the weights are elsewhere.
    SmallFiles,
    /// Everything that loading reads.
    Everything,
}

/// The files among `names` that are needed: those of the model itself and of towers in folders `inside` it, weights last and in
/// one format, safetensors where there are any.
pub(super) fn choose<'a>(names: &'a [String], inside: &[PathBuf], need: Need) -> Vec<&'a str> {
    let folders = std::iter::once(Path::new("")).chain(inside.iter().map(PathBuf::as_path));
    let mut chosen: Vec<&str> = folders.flat_map(|folder| choose_in(names, folder, need)).collect();
    chosen.sort_by_key(|name| is_weights(name));
    chosen
}

fn choose_in<'a>(names: &'a [String], folder: &Path, need: Need) -> Vec<&'a str> {
    let here = || {
        let in_folder = names.iter().filter(|name| Path::new(name).parent() == Some(folder));
        // On some systems these lead elsewhere.
        let plain = in_folder.filter(|name| !name.contains(['\\', ':']));
        plain.map(|name| (name.as_str(), name.rsplit('/').next().unwrap_or(name)))
    };
    let safe = here().any(|(_, name)| name.starts_with("model") && name.ends_with(".safetensors"));
    let wanted = |name: &str| {
        let is = |start: &str, end: &str| name.starts_with(start) && name.ends_with(end);
        match name {
            "model.safetensors.index.json" => safe,
            "pytorch_model.bin.index.json" => !safe,
            _ if is("model", ".safetensors") => safe,
            _ if is("pytorch_model", ".bin") => !safe,
            _ if is_weights(name) => {
                ["mm_", "adapter_", "non_lora_"].iter().any(|start| name.starts_with(start))
            }
            "merges.txt" | "tokenizer.model" | "spiece.model" | "chat_template.jinja" => true,
            _ => {
                name.ends_with(".json")
                    || ["LICENSE", "NOTICE", "USE_POLICY"].iter().any(|start| name.starts_with(start))
            }
        }
    };
    let needed = |name: &str| need == Need::Everything || !is_weights(name) && !name.ends_with(".index.json");
    here().filter(|(_, name)| wanted(name) && needed(name)).map(|(path, _)| path).collect()
}

/// Whether a file holds weights.
pub(super) fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

/// Whether `dir` holds what is needed, as far as that shows without asking. Some models have no tokenizer of their own; that these
/// count as not whole costs a question to the hub.
pub(super) fn is_whole(dir: &Path, need: Need) -> bool {
    let tokenizers = ["tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json"];
    let tokenizer = || tokenizers.iter().any(|name| dir.join(name).is_file());
    is_usable(dir, need) && (tokenizer() || builds_on_another(dir))
}

/// Whether `dir` holds stage-1 files or an adapter alone; tokenizers come with what these build on.
fn builds_on_another(dir: &Path) -> bool {
    !TensorSource::folder_has_weights(dir) && (folder_has_bridges(dir) || has_adapter(dir))
}

fn has_adapter(dir: &Path) -> bool {
    let weights = ["adapter_model.safetensors", "adapter_model.bin"];
    dir.join(ADAPTER_CONFIG).is_file() && weights.iter().any(|name| dir.join(name).is_file())
}

/// Whether `dir` holds a configuration, and all weights where they are needed.
pub(super) fn is_usable(dir: &Path, need: Need) -> bool {
    let shards = |index: &Index| index.weight_map.values().all(|shard| dir.join(shard).is_file());
    let weights = || index(dir).map_or_else(|| TensorSource::folder_has_weights(dir), |index| shards(&index));
    let config = dir.join("config.json").is_file() || has_adapter(dir);
    config && (need == Need::SmallFiles || weights() || builds_on_another(dir))
}

/// Folders inside a model that its config.json names as towers.
pub(super) fn towers_inside(config: &Path) -> Vec<PathBuf> {
    let named = tower_names(config).into_iter().map(|(_, name)| PathBuf::from(name));
    let inside = |name: &PathBuf| name.components().all(|part| matches!(part, path::Component::Normal(_)));
    let mut folders: Vec<PathBuf> =
        named.filter(|name| name.components().count() > 0 && inside(name)).collect();
    folders.sort();
    folders.dedup();
    folders
}

/// Models on Hugging Face that the one in `dir` builds on by their names, and what is needed of each. What is found beside it is
/// not asked for, nor is what stage-1 files or an adapter build on where `has_base`.
pub(super) fn companions(dir: &Path, has_base: bool) -> Vec<(ModelName, Need)> {
    let config = dir.join("config.json");
    let keys = stored_keys(dir);
    let mut needed = Vec::new();
    for (part, name) in tower_names(&config) {
        let beside = locate_tower(dir, None, &name).is_some_and(|folder| hub_name_of(&folder).is_none());
        let stored = keys.iter().any(|key| key.starts_with(part.key_prefix()));
        if !beside {
            needed.push((name, if stored { Need::SmallFiles } else { Need::Everything }));
        }
    }
    if builds_on_another(dir) && !has_base {
        let base = match has_adapter(dir) {
            true => read(&dir.join(ADAPTER_CONFIG))
                .and_then(|adapter: AdapterConfig| adapter.base_model_name_or_path),
            false => read(&config).and_then(|config: Config| config.name_or_path),
        };
        needed.extend(base.map(|name| (name, Need::Everything)));
    }
    needed.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
    needed.dedup_by(|later, first| later.0 == first.0);
    let on_hub = needed.into_iter().filter(|(name, _)| is_hub_name(name));
    on_hub.map(|(name, need)| (ModelName { name, revision: None }, need)).collect()
}

/// What config.json says of other models.
#[derive(Deserialize)]
struct Config {
    mm_vision_tower: Option<String>,
    mm_text_tower: Option<String>,
    #[serde(rename = "_name_or_path")]
    name_or_path: Option<String>,
}

/// What adapter_config.json says of another model.
#[derive(Deserialize)]
struct AdapterConfig {
    base_model_name_or_path: Option<String>,
}

/// Which file holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn index(dir: &Path) -> Option<Index> {
    let names = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];
    names.into_iter().find_map(|name| read(&dir.join(name)))
}

/// The keys of a model's own weights.
fn stored_keys(dir: &Path) -> Vec<String> {
    match index(dir) {
        Some(index) => index.weight_map.into_keys().collect(),
        // What is wrong with the file shows when it is loaded.
        None => TensorSource::from_folder(dir)
            .map_or_else(|_| Vec::new(), |source| source.iter().map(|(key, _)| key.to_owned()).collect()),
    }
}

/// The towers that a config.json names.
fn tower_names(config: &Path) -> Vec<(Component, String)> {
    let Some(Config { mm_vision_tower, mm_text_tower, .. }) = read(config) else { return Vec::new() };
    let towers = [(Component::VisionTower, mm_vision_tower), (Component::TextTower, mm_text_tower)];
    towers.into_iter().filter_map(|(part, name)| Some((part, name?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_loading_reads_is_chosen_weights_last() {
        let all = names(
            "model-00001-of-00002.safetensors README.md config.json pytorch_model.bin model.safetensors.index.json tokenizer.json \
             tf_model.h5 onnx/model.onnx model-00002-of-00002.safetensors merges.txt LICENSE.txt .gitattributes flax_model.msgpack \
             pytorch_model.bin.index.json original/params.json",
        );
        assert_eq!(
            choose(&all, &[], Need::Everything),
            names(
                "config.json model.safetensors.index.json tokenizer.json merges.txt LICENSE.txt model-00001-of-00002.safetensors \
                 model-00002-of-00002.safetensors"
            )
        );
        assert_eq!(
            choose(&all, &[], Need::SmallFiles),
            ["config.json", "tokenizer.json", "merges.txt", "LICENSE.txt"]
        );
    }

    #[test]
    fn pytorch_files_are_taken_where_nothing_else_is() {
        let all = names(
            "config.json pytorch_model-00001-of-00001.bin pytorch_model.bin.index.json training_args.bin",
        );
        assert_eq!(
            choose(&all, &[], Need::Everything),
            names("config.json pytorch_model.bin.index.json pytorch_model-00001-of-00001.bin")
        );
        let stage1 = names("config.json mm_projector.bin optimizer.bin");
        assert_eq!(choose(&stage1, &[], Need::Everything), ["config.json", "mm_projector.bin"]);
    }

    #[test]
    fn towers_inside_are_chosen_too() {
        let all = names(
            "config.json model.safetensors clip-tower/config.json clip-tower/vocab.json other/config.json",
        );
        let chosen = choose(&all, &["clip-tower".into()], Need::Everything);
        assert_eq!(
            chosen,
            names("config.json clip-tower/config.json clip-tower/vocab.json model.safetensors")
        );
        let evil = names("..\\..\\x.json c:x.json ../x.json /x.json config.json");
        assert_eq!(choose(&evil, &[], Need::Everything), ["config.json"]);
    }

    #[test]
    fn a_model_is_whole_with_all_its_shards_and_a_tokenizer() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let whole = |need| is_whole(dir.path(), need);
        write("config.json", "{}");
        assert!(!whole(Need::SmallFiles));
        write("tokenizer.json", "{}");
        assert!(whole(Need::SmallFiles) && !whole(Need::Everything));
        write(
            "model.safetensors.index.json",
            r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#,
        );
        write("1.safetensors", "");
        assert!(!whole(Need::Everything));
        write("2.safetensors", "");
        assert!(whole(Need::Everything));
    }

    #[test]
    fn an_adapter_builds_on_what_its_config_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("adapter_config.json", r#"{"base_model_name_or_path": "none-such/d"}"#);
        assert!(!is_whole(dir.path(), Need::Everything));
        write("adapter_model.safetensors", "");
        assert!(is_whole(dir.path(), Need::Everything));
        let base = ModelName { name: "none-such/d".into(), revision: None };
        assert_eq!(companions(dir.path(), false), [(base, Need::Everything)]);
        assert_eq!(companions(dir.path(), true), []);
    }

    #[test]
    fn companions_are_named_by_config_json() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let found = || companions(dir.path(), false).into_iter().map(|(name, need)| (name.to_string(), need));
        let found = || found().collect::<Vec<_>>();
        write(
            "config.json",
            r#"{"mm_vision_tower": "none-such/v", "mm_text_tower": "none-such/t", "_name_or_path": "none-such/d"}"#,
        );
        let towers = ["none-such/t", "none-such/v"].map(|name| (name.to_owned(), Need::Everything));
        assert_eq!(found(), towers);
        // Stage-1 files build on a decoder.
        write("mm_projector.bin", "");
        assert_eq!(found()[0], ("none-such/d".to_owned(), Need::Everything));
        assert_eq!(companions(dir.path(), true).len(), 2);
        // Towers in the weights need no other.
        write(
            "model.safetensors.index.json",
            r#"{"weight_map": {"model.vision_tower.a": "x", "model.text_tower.a": "x"}}"#,
        );
        assert_eq!(found(), towers.map(|(name, _)| (name, Need::SmallFiles)));
        // What is beside the model, and what is no name, is not asked for.
        write("config.json", r#"{"mm_vision_tower": "clip-tower", "mm_text_tower": "/models/clip"}"#);
        assert_eq!(found(), []);
        assert_eq!(towers_inside(&dir.path().join("config.json")), [PathBuf::from("clip-tower")]);
    }
}
