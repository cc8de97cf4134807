//! Weights that are quantised in their files.

use std::path::PathBuf;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tg_llava_core::config::read_model_config;
use tg_llava_core::quant::Scheme;
use tg_llava_core::weights::{
    Component, Encoding, ExistingModel, MergeOptions, convert_checkpoint, open_sources,
};

use super::*;

/// The values of every weight, by the reference's keys.
fn values(model: &TgLlava) -> BTreeMap<String, Vec<f32>> {
    tg_llava_tests::weights(model)
}

/// A copy of the flat golden folder `name`, without its golden file.
fn copy_of(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(name).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

/// Writes the weights anew, each under the key that `rename` gives it; none leaves it out.
fn rename_keys(dir: &Path, rename: impl Fn(&str) -> Option<String>) {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let kept: Vec<(String, TensorView<'_>)> =
        tensors.tensors().into_iter().filter_map(|(key, view)| Some((rename(&key)?, view))).collect();
    let out = safetensors::serialize(kept, None).unwrap();
    std::fs::write(&path, out).unwrap();
}

fn message(dir: &Path) -> String {
    load(dir).unwrap_err().to_string()
}

const Q: &str = "model.layers.0.self_attn.q_proj";

#[test]
fn a_lost_or_left_over_part_of_a_quantised_tensor_is_named() {
    for (folder, lost) in [
        ("quant/bnb-nf4/vicuna-tiny", format!("{Q}.weight.absmax")),
        ("quant/bnb-nf4/vicuna-tiny", format!("{Q}.weight.quant_map")),
        ("quant/bnb-nf4/vicuna-tiny", format!("{Q}.weight.nested_absmax")),
        ("quant/bnb-nf4/vicuna-tiny", format!("{Q}.weight")),
        ("quant/bnb-int8/vicuna-tiny", format!("{Q}.weight")),
    ] {
        let dir = copy_of(folder);
        rename_keys(dir.path(), |key| (key != lost).then(|| key.to_owned()));
        let message = message(dir.path());
        assert!(message.contains(&format!("`{lost}`: not in the file")), "{message}");
    }
    // Without its state or scales, a tensor is no weight, and what is left of it unknown.
    for (folder, lost, left) in [
        ("quant/bnb-nf4/vicuna-tiny", "weight.quant_state.bitsandbytes__nf4", "weight.absmax"),
        ("quant/bnb-int8/vicuna-tiny", "SCB", "weight_format"),
    ] {
        let dir = copy_of(folder);
        let lost = format!("{Q}.{lost}");
        rename_keys(dir.path(), |key| (key != lost).then(|| key.to_owned()));
        let message = message(dir.path());
        assert!(message.contains(&format!("{Q}.{left}")) || message.contains("has dtype"), "{message}");
    }
}

/// Reads every value that there is; only panics and allocations matter.
fn read_all(dir: &Path) -> Result<(), Error> {
    let source = TensorSource::from_folder(dir)?;
    let weights = source.iter().filter(|(_, stored)| stored.num_elements() < 1 << 20);
    weights.map(|(_, stored)| stored.read_values(|_| ())).try_for_each(|read| read)
}

#[test]
fn changed_bytes_give_an_error_or_values() {
    let folders =
        [fixture("quant/bnb-nf4/vicuna-tiny"), fixture("quant/bnb-int8/qwen2-tiny"), blocks().path().into()];
    let whole = folders.map(|folder| std::fs::read(folder.join("model.safetensors")).unwrap());
    let dir = tempfile::tempdir().unwrap();
    // Numbers that look like chance and are the same each time.
    let mut state = 7u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..150 {
        let mut bytes = whole[draw(3)].clone();
        // Half of them in the header.
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for _ in 0..1 + draw(5) {
            let end = if draw(2) == 0 { header } else { bytes.len() };
            bytes[draw(end)] = draw(128) as u8;
        }
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        if let Err(error) = read_all(dir.path()) {
            assert!(error.to_string().contains("model.safetensors"), "{error}");
        }
    }
}

/// A checkpoint in blocks of GGML.
fn blocks() -> &'static tempfile::TempDir {
    static DIR: std::sync::LazyLock<tempfile::TempDir> = std::sync::LazyLock::new(|| {
        let (dir, device) = (tempfile::tempdir().unwrap(), Device::flex());
        let options = MergeOptions {
            base: None,
            dtype: None,
            base_through: Encoding::Floats,
            device: &device,
            max_shard_bytes: u64::MAX,
            existing: ExistingModel::Refuse,
        };
        let from = fixture("models/vicuna-tiny/base-llm");
        convert_checkpoint(&from, dir.path(), &options, Encoding::Ggml(Scheme::Q4_0)).unwrap();
        dir
    });
    &DIR
}

#[test]
fn blocks_that_do_not_fit_their_state_are_refused() {
    let change = |from: &str, to: &str| {
        let dir = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(blocks().path().join(file), dir.path().join(file)).unwrap();
        }
        let path = dir.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(from.len(), to.len());
        let places: Vec<usize> =
            (0..bytes.len() - from.len()).filter(|&i| bytes[i..].starts_with(from.as_bytes())).collect();
        for place in places {
            bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
        }
        std::fs::write(&path, bytes).unwrap();
        message(dir.path())
    };
    let text = change(r#""shape":[40,40]"#, r#""shape":[40,99]"#);
    assert!(text.contains("model.safetensors") && text.contains("expected U8 [40, 72]"), "{text}");
    let text = change(r#""type":"Q4_0""#, r#""type":"Q2_K""#);
    assert!(text.contains("has type Q2_K") && text.contains("Q4_K"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(blocks().path().join(file), dir.path().join(file)).unwrap();
    }
    rename_keys(dir.path(), |key| (key != format!("{Q}.weight")).then(|| key.to_owned()));
    assert!(message(dir.path()).contains(&format!("`{Q}.weight`: not in the file")));
}

#[test]
fn a_method_that_is_not_read_is_named() {
    let dir = copy_of("quant/bnb-nf4/vicuna-tiny");
    let path = dir.path().join("config.json");
    let mut config = json_of(&path);
    config["quantization_config"]["quant_method"] = "gptq".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let message = message(dir.path());
    assert!(
        message.contains("config.json") && message.contains("\"gptq\"; bitsandbytes and ggml alone"),
        "{message}"
    );
}

#[test]
fn what_is_saved_of_a_quantised_model_says_that_it_is_not() {
    let from = fixture("quant/bnb-nf4/qwen2-tiny");
    let model = load(&from).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save_model(&model, dir.path(), &SaveOptions { template: Some(from), ..SaveOptions::default() }).unwrap();
    assert!(json_of(&dir.path().join("config.json")).get("quantization_config").is_none());
    assert_eq!(values(&load(dir.path()).unwrap()), values(&model));
}

/// Also in pieces, where a buffer of the device is too small for the whole vocabulary.
#[test]
fn a_decoder_that_is_named_apart_takes_the_place_of_the_checkpoints_own() {
    let base = fixture("quant/bnb-int8/vicuna-tiny");
    let decoder = values(&load(&base).unwrap());
    let own = values(&load(&fixture("models/vicuna-tiny")).unwrap());
    for largest_buffer in [None, Some(10_000)] {
        let options = LoadOptions { base: Some(base.clone()), largest_buffer, ..LoadOptions::default() };
        let model =
            load_model(&fixture("models/vicuna-tiny"), &Device::flex(), &options, &mut |_| {}).unwrap().model;
        let mut replaced = 0;
        for (key, found) in values(&model) {
            let expected = match Component::of_key(&key) {
                Some(Component::Llm) => &decoder[&key],
                _ => &own[&key],
            };
            assert!(found == *expected, "{key}");
            replaced += usize::from(own[&key] != *expected);
        }
        assert_eq!(replaced, 14, "the matrices of both blocks");
    }
}

/// A folder of the plain decoder that a GGUF file of the golden data holds, with weights of its own.
fn decoder_beside(file: &str) -> (tempfile::TempDir, PathBuf) {
    let golden = fixture("quant/gguf").join(file);
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(golden.join("config.json"), dir.path().join("config.json")).unwrap();
    let config = read_model_config(dir.path()).unwrap();
    save_model(&config.init(&Device::flex()).unwrap(), dir.path(), &SaveOptions::default()).unwrap();
    (dir, golden.join("decoder.gguf"))
}

#[test]
fn a_gguf_file_fills_every_weight_of_its_decoder() {
    for architecture in ["llama", "qwen2"] {
        let (dir, file) = decoder_beside(architecture);
        let own = values(&load(dir.path()).unwrap());
        let options = LoadOptions { base: Some(file), ..LoadOptions::default() };
        let loaded = load_model(dir.path(), &Device::flex(), &options, &mut |_| {}).unwrap();
        assert_eq!(loaded.report.loaded, own.len());
        let found = values(&loaded.model);
        assert!(own.iter().all(|(key, values)| key.contains("norm") || found[key] != *values));
    }
}

#[test]
fn a_gguf_file_of_another_decoder_is_refused() {
    let (dir, _) = decoder_beside("llama");
    let config = read_model_config(dir.path()).unwrap();
    let other = fixture("quant/gguf/qwen2/decoder.gguf");
    let message = open_sources(dir.path(), &config, Some(&other)).err().unwrap().to_string();
    assert!(message.contains("decoder.gguf") && message.contains("model_type is Qwen2"), "{message}");
}
