//! Writing and reading checkpoints.

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

#[test]
fn what_is_saved_loads_bit_for_bit() {
    for case in CASES {
        let dir = fixture("models").join(case);
        let model = load(&dir).unwrap();
        let (once, twice) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = SaveOptions { template: Some(dir.clone()), ..SaveOptions::default() };
        save_model(&model, once.path(), &options).unwrap();
        let again = load(once.path()).unwrap();
        assert_eq!(again.config().llm, model.config().llm, "{case}");
        assert_eq!(again.config().multimodal, model.config().multimodal, "{case}");
        let sharded = SaveOptions { max_shard_bytes: 100_000, template: Some(once.path().to_path_buf()) };
        save_model(&again, twice.path(), &sharded).unwrap();
        assert!(twice.path().join("model.safetensors.index.json").is_file(), "{case}");
        let saved = contents(once.path());
        assert_eq!(saved, contents(twice.path()), "{case}");
        // All but the placeholders of BERT's unused parts are the original's values.
        let original = contents(&dir);
        assert!(original.keys().eq(saved.keys()), "{case}");
        for (key, value) in &original {
            if !tg_llava_core::weights::is_unused_key(key) {
                assert_eq!(value, &saved[key], "{case}: {key}");
            }
        }
    }
}

#[test]
fn half_precision_is_kept_and_converted() {
    let dir = fixture("models/qwen2-tiny");
    for dtype in [DType::F16, DType::BF16] {
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        let half = load_model(&dir, &Device::flex(), &options, &mut |_| {}).unwrap().model;
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let save = SaveOptions { template: Some(dir.clone()), ..SaveOptions::default() };
        save_model(&half, first.path(), &save).unwrap();
        let stored = TensorSource::from_folder(first.path()).unwrap();
        let name = if dtype == DType::F16 { "F16" } else { "BF16" };
        assert_eq!(stored.get("lm_head.weight").unwrap().dtype_name, name);
        // Widened to f32 and narrowed again, nothing changes.
        let single = load(first.path()).unwrap();
        assert_eq!(single.llm.dtype(), DType::F32);
        save_model(&single, second.path(), &SaveOptions::default()).unwrap();
        let narrowed = load_model(second.path(), &Device::flex(), &options, &mut |_| {}).unwrap().model;
        let third = tempfile::tempdir().unwrap();
        save_model(&narrowed, third.path(), &SaveOptions::default()).unwrap();
        assert_eq!(contents(first.path()), contents(third.path()));
    }
}

/// A device whose buffers hold but a part of embedding and head gives the same numbers, and saves the same files.
#[test]
fn a_vocabulary_in_pieces_changes_nothing() {
    for (case, tied) in [("vicuna-tiny", false), ("qwen2-tiny", false), ("identity-tiny", true)] {
        let dir = fixture("models").join(case);
        let load = |largest_buffer| {
            let options = LoadOptions { largest_buffer, ..LoadOptions::default() };
            load_model(&dir, &Device::flex(), &options, &mut |_| {}).unwrap()
        };
        let (whole, cut) = (load(None), load(Some(10_000)));
        assert_eq!(whole.report, cut.report, "{case}");
        let (whole, cut) = (whole.model, cut.model);
        let pieces = cut.llm.embed_tokens_more.len();
        assert!(pieces >= 2 && cut.llm.lm_head_more.len() == if tied { 0 } else { pieces }, "{case}");
        for table in std::iter::once(&cut.llm.embed_tokens).chain(&cut.llm.embed_tokens_more) {
            assert!(table.weight.shape().num_elements() * 4 <= 10_000, "{case}");
        }

        let vocab_size = whole.config().llm.vocab_size as i64;
        let ids: Vec<i64> = (0..vocab_size).rev().chain([3, vocab_size - 1, 3]).collect();
        let (a, b) = (whole.llm.embed(&ids), cut.llm.embed(&ids));
        assert_eq!(a.to_data(), b.to_data(), "{case}");
        assert_eq!(cut.llm.embed(&[]).dims()[0], 0, "{case}");
        for rows in [1, 9] {
            let hidden = a.clone().narrow(0, 0, rows);
            let (a, b) = (whole.llm.logits(hidden.clone()), cut.llm.logits(hidden));
            assert_eq!(a.dims(), b.dims());
            a.into_data().assert_approx_eq::<f32>(&b.into_data(), Tolerance::rel_abs(1e-6, 1e-6));
        }

        let tensors = |model| -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
            let all = reference_tensors(model).into_iter();
            all.map(|(key, t)| (key, (t.shape().to_vec(), t.values().unwrap()))).collect()
        };
        assert_eq!(tensors(&whole), tensors(&cut), "{case}");
        let saved = tempfile::tempdir().unwrap();
        save_model(
            &cut,
            saved.path(),
            &SaveOptions { template: Some(dir.clone()), ..SaveOptions::default() },
        )
        .unwrap();
        let saved = contents(saved.path());
        for (key, value) in contents(&dir) {
            if !tg_llava_core::weights::is_unused_key(&key) {
                assert_eq!(value, saved[&key], "{case}: {key}");
            }
        }
    }
}

/// Names and shapes of the trainable parts at full size are the reference's, every one of them.
#[test]
fn keys_at_full_size_are_the_references() {
    let text = std::fs::read_to_string(fixture("full_size_manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let presets =
        [("vicuna-7b / llama-3-8b", "vicuna-7b"), ("vicuna-13b", "vicuna-13b"), ("qwen2-7b", "qwen2-7b")];
    for (entry, preset) in presets {
        let llm = llm_preset(preset).unwrap();
        let (vision, text) = tower_preset("clip-l-336").unwrap();
        let config = ModelConfig {
            multimodal: Some(multimodal(vision, text, "clip", llm.hidden_size)),
            llm,
            conversation: None,
            max_length: 2048,
            padding_side: PaddingSide::Right,
        };
        // Lazy: no memory is taken for the weights.
        let model = config.init(&Device::flex()).unwrap();
        let ours: BTreeMap<String, Vec<usize>> = reference_tensors(&model)
            .into_iter()
            .filter(|(key, _)| key.starts_with("model.mm_"))
            .map(|(key, tensor)| (key, tensor.shape().to_vec()))
            .collect();
        let golden: BTreeMap<String, Vec<usize>> =
            serde_json::from_value(manifest["models"][entry]["tensors"].clone()).unwrap();
        assert_eq!(ours, golden, "{preset}");
    }
}

#[test]
fn all_that_does_not_fit_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny(50);
    save_model(&config.init(&Device::flex()).unwrap(), dir.path(), &SaveOptions::default()).unwrap();
    assert!(load(dir.path()).is_ok());
    // Another width of the feed-forward, one block more, and no detail perceiver.
    let path = dir.path().join("config.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    json["intermediate_size"] = 40.into();
    json["num_hidden_layers"] = 3.into();
    json["tg_llava"]["detail_perceiver"] = false.into();
    std::fs::write(&path, json.to_string()).unwrap();
    let Error::Weights(WeightsError::Mismatch { missing, unknown, misshapen }) =
        load(dir.path()).unwrap_err()
    else {
        panic!("another error was expected");
    };
    assert!(missing.contains(&"model.layers.2.mlp.up_proj.weight".to_owned()));
    assert!(unknown.iter().any(|key| key.starts_with("model.mm_patch_encoder.perceiver.latents")));
    assert!(misshapen.iter().any(|key| key.starts_with("model.layers.0.mlp.up_proj.weight: [48, 32]")));
}

#[test]
fn a_cut_file_names_file_and_tensor() {
    let dir = tempfile::tempdir().unwrap();
    save_model(&tiny(50).init(&Device::flex()).unwrap(), dir.path(), &SaveOptions::default()).unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") && error.contains("tensor model."), "{error}");
    // A header that promises more than there is.
    std::fs::write(&path, &bytes[..100]).unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
    std::fs::write(&path, b"").unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("too short"), "{error}");
}

#[test]
fn integers_are_no_weights() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(50).init(&Device::flex()).unwrap();
    save_model(&model, dir.path(), &SaveOptions::default()).unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let header = String::from_utf8_lossy(&bytes).find("\"model.norm.weight\":{\"dtype\":\"F32\"").unwrap();
    let mut changed = bytes;
    let dtype = header + "\"model.norm.weight\":{\"dtype\":\"".len();
    changed[dtype..dtype + 3].copy_from_slice(b"I32");
    std::fs::write(&path, changed).unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("model.norm.weight") && error.contains("I32"), "{error}");
}

/// Without text tower, guide and detail perceiver there is plain LLaVA; each may also be left out alone.
#[test]
fn ablations_save_and_load() {
    for (guide, detail) in [(true, false), (false, true), (false, false)] {
        let mut config = tiny(50);
        let mm = config.multimodal.as_mut().unwrap();
        mm.guide = mm.guide.take().filter(|_| guide);
        mm.detail = mm.detail.take().filter(|_| detail);
        if !guide && !detail {
            mm.text = None;
        }
        let dir = tempfile::tempdir().unwrap();
        save_model(&config.init(&Device::flex()).unwrap(), dir.path(), &SaveOptions::default()).unwrap();
        let loaded = load(dir.path()).unwrap();
        assert_eq!(loaded.feature_guide.is_some(), guide);
        assert_eq!(loaded.detail_perceiver.is_some(), detail);
        assert_eq!(loaded.config().multimodal, config.multimodal);
    }
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

/// Whatever form an earlier save had, what is read afterwards is what was saved last, and nothing else is there.
#[test]
fn a_save_leaves_no_other_form_of_weights() {
    let dir = tempfile::tempdir().unwrap();
    let base = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let whole = SaveOptions::default();
    let shards = SaveOptions { max_shard_bytes: 20_000, template: None };
    let key = "model.mm_projector.0.weight";
    let projector = |model: &TgLlava| reference_tensors(model)[key].values().unwrap();
    let draw = || tiny(50).init(&device).unwrap();
    // Left by someone else, or by the reference.
    std::fs::write(dir.path().join("pytorch_model.bin"), "stale").unwrap();
    std::fs::write(dir.path().join("notes.txt"), "kept").unwrap();

    for round in ["shards", "one file", "bridges", "shards", "bridges", "one file"] {
        let model = draw();
        match round {
            "shards" => save_model(&model, dir.path(), &shards).unwrap(),
            "one file" => save_model(&model, dir.path(), &whole).unwrap(),
            _ => save_bridges(&model, dir.path(), base.path(), &whole).unwrap(),
        }
        let read = match round {
            "bridges" => {
                assert!(!TensorSource::folder_has_weights(dir.path()));
                open_bridges(&[dir.path().to_path_buf()]).unwrap().get(key).unwrap().bytes().unwrap()
            }
            _ => {
                assert_eq!(projector(&load(dir.path()).unwrap()), projector(&model), "{round}");
                contents(dir.path())[key].1.clone()
            }
        };
        let values: Vec<u8> = projector(&model).iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(read, values, "{round}");
        let names = names(dir.path());
        let has = |name: &str| names.iter().any(|file| file == name);
        assert_eq!(has("model.safetensors"), round == "one file", "{names:?}");
        assert_eq!(has("model.safetensors.index.json"), round == "shards", "{names:?}");
        assert_eq!(names.iter().any(|name| name.starts_with("mm_")), round == "bridges", "{names:?}");
        assert_eq!(names.iter().any(|name| name.starts_with("model-0")), round == "shards", "{names:?}");
        assert!(!has("pytorch_model.bin") && has("notes.txt") && has("config.json"), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
    }
    // The decoder that stage-1 files need is not taken away by them.
    let error = save_bridges(&draw(), dir.path(), dir.path(), &whole).unwrap_err().to_string();
    assert!(error.contains("decoder"), "{error}");
    assert!(load(dir.path()).is_ok());
}

/// Between the deletion of the old files and the last rename, a killed save leaves a folder that nothing reads.
#[test]
fn old_and_new_files_never_read_as_one_model() {
    let (dir, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let device = Device::flex();
    let model = tiny(50).init(&device).unwrap();
    let shards = SaveOptions { max_shard_bytes: 20_000, template: None };
    save_model(&tiny(50).init(&device).unwrap(), dir.path(), &shards).unwrap();
    save_model(&model, new.path(), &shards).unwrap();
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    for name in names(new.path()).iter().filter(|name| *name != "config.json") {
        std::fs::copy(new.path().join(name), dir.path().join(name)).unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
    }
    save_model(&model, dir.path(), &SaveOptions::default()).unwrap();
    assert_eq!(contents(dir.path()), contents(new.path()));
}

/// Stage-1 files are read without config.json, and a part that is not there counts as one to draw anew.
#[test]
fn half_moved_stage_1_files_are_not_read() {
    let (dir, base) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = tiny(50).init(&Device::flex()).unwrap();
    save_bridges(&model, dir.path(), base.path(), &SaveOptions::default()).unwrap();
    let open = || open_bridges(&[dir.path().to_path_buf()]);
    let staged = dir.path().join(".partial-save");
    std::fs::create_dir(&staged).unwrap();
    // A later save that was killed while it wrote.
    assert!(open().is_ok());
    for name in
        names(dir.path()).iter().filter(|name| !name.starts_with("mm_projector") && **name != ".partial-save")
    {
        std::fs::rename(dir.path().join(name), staged.join(name)).unwrap();
    }
    let error = open().err().unwrap();
    assert!(matches!(error, Error::Weights(WeightsError::Damaged { .. })), "{error}");
    assert!(error.to_string().contains("interrupted"), "{error}");
    save_bridges(&model, dir.path(), base.path(), &SaveOptions::default()).unwrap();
    assert!(open().is_ok());
}

#[test]
fn small_files_of_another_model_go_with_its_weights() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("added_tokens.json"), "{}").unwrap();
    let template = Some(fixture("models/qwen2-tiny"));
    let options = SaveOptions { template, ..SaveOptions::default() };
    save_model(&tiny(50).init(&Device::flex()).unwrap(), dir.path(), &options).unwrap();
    let names = names(dir.path());
    assert!(names.contains(&"tokenizer.json".to_owned()), "{names:?}");
    assert!(!names.contains(&"added_tokens.json".to_owned()), "{names:?}");
}

#[test]
fn two_forms_of_weights_in_a_folder_are_an_error() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = tiny(50).init(&Device::flex()).unwrap();
    let shards = SaveOptions { max_shard_bytes: 20_000, template: None };
    save_model(&model, dir.path(), &shards).unwrap();
    save_model(&model, other.path(), &SaveOptions::default()).unwrap();
    let copy = |name: &str| std::fs::copy(other.path().join(name), dir.path().join(name)).unwrap();

    copy("model.safetensors");
    let error = load(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Weights(WeightsError::TwoForms { .. })), "{error}");
    let error = error.to_string();
    assert!(
        error.contains("model.safetensors and") && error.contains("model.safetensors.index.json"),
        "{error}"
    );
    assert!(error.contains("remove"), "{error}");
    // An index of that one file is no other form.
    let index = dir.path().join("model.safetensors.index.json");
    let map: BTreeMap<String, &str> =
        contents(other.path()).into_keys().map(|key| (key, "model.safetensors")).collect();
    std::fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    assert!(load(dir.path()).is_ok());

    // Stage-1 files beside a model that has bridges: a copy of its own, as published models hold it, and others.
    save_model(&model, dir.path(), &SaveOptions::default()).unwrap();
    save_bridges(&model, other.path(), dir.path(), &SaveOptions::default()).unwrap();
    copy("mm_projector.bin");
    assert!(load(dir.path()).is_ok());
    let model = tiny(50).init(&Device::flex()).unwrap();
    save_bridges(&model, other.path(), dir.path(), &SaveOptions::default()).unwrap();
    copy("mm_projector.safetensors");
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("mm_projector.safetensors and") && error.contains("mm_projector.0"), "{error}");
}

#[test]
fn an_index_names_files_of_its_own_folder_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    let shards = SaveOptions { max_shard_bytes: 20_000, template: None };
    save_model(&tiny(50).init(&Device::flex()).unwrap(), &dir, &shards).unwrap();
    let path = dir.join("model.safetensors.index.json");
    let index = json_of(&path);
    let first = "model-00001-of-00002.safetensors";
    let outside = parent.path().join("outside.safetensors");
    let shard =
        index["weight_map"].as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
    std::fs::copy(dir.join(&shard), &outside).unwrap();
    for name in ["../outside.safetensors", outside.to_str().unwrap(), "./sub/x.safetensors", "..", "", first]
    {
        let mut changed = index.clone();
        for place in changed["weight_map"].as_object_mut().unwrap().values_mut() {
            if *place == *shard {
                *place = name.into();
            }
        }
        std::fs::write(&path, changed.to_string()).unwrap();
        let error = load(&dir).unwrap_err();
        let outside =
            matches!(&error, Error::Weights(WeightsError::OutsideFolder { shard, .. }) if shard == name);
        assert_eq!(outside, name != first, "{error}");
        assert!(error.to_string().contains("model.safetensors.index.json"), "{error}");
    }
}

/// Sizes that no model has are refused before anything is allocated for them.
#[test]
fn sizes_of_a_configuration_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    save_model(&tiny(50).init(&Device::flex()).unwrap(), dir.path(), &SaveOptions::default()).unwrap();
    let path = dir.path().join("config.json");
    let whole = json_of(&path);
    let large = [1u64 << 20, 1 << 40, u64::MAX];
    let integers = [
        "/vocab_size",
        "/hidden_size",
        "/intermediate_size",
        "/num_hidden_layers",
        "/num_attention_heads",
        "/num_key_value_heads",
        "/max_position_embeddings",
        "/tg_llava/num_query_tokens",
        "/tg_llava/num_patch_positions",
        "/tg_llava/perceiver/depth",
        "/tg_llava/perceiver/n_latents",
        "/tg_llava/perceiver/num_heads",
        "/tg_llava/perceiver/num_key_value_heads",
        "/tg_llava/perceiver/head_dim",
        "/tg_llava/perceiver/hidden_size",
        "/tg_llava/perceiver/intermediate_size",
        "/tg_llava/qformer/num_hidden_layers",
        "/tg_llava/qformer/cross_attention_freq",
        "/tg_llava/qformer/num_attention_heads",
        "/tg_llava/qformer/hidden_size",
        "/tg_llava/qformer/encoder_width",
        "/tg_llava/qformer/intermediate_size",
        "/tg_llava/qformer/vocab_size",
        "/tg_llava/qformer/max_position_embeddings",
        "/tg_llava/vision_config/image_size",
        "/tg_llava/vision_config/patch_size",
        "/tg_llava/vision_config/num_channels",
        "/tg_llava/vision_config/hidden_size",
        "/tg_llava/vision_config/num_hidden_layers",
        "/tg_llava/vision_config/num_attention_heads",
        "/tg_llava/text_config/vocab_size",
        "/tg_llava/text_config/hidden_size",
        "/tg_llava/text_config/num_hidden_layers",
        "/tg_llava/text_config/max_position_embeddings",
    ];
    let reals = [
        "/rms_norm_eps",
        "/rope_theta",
        "/initializer_range",
        "/tg_llava/perceiver/rms_norm_eps",
        "/tg_llava/qformer/layer_norm_eps",
        "/tg_llava/vision_config/layer_norm_eps",
        "/tg_llava/text_config/layer_norm_eps",
    ];
    let refused = |pointer: &str, value: Value| {
        let mut json = whole.clone();
        let place = json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not in config.json"));
        *place = value.clone();
        std::fs::write(&path, json.to_string()).unwrap();
        let Err(error) = load(dir.path()) else { panic!("{pointer} = {value} was taken") };
        let error = error.to_string();
        assert!(error.len() < 10_000, "{} bytes over {pointer} = {value}", error.len());
        // A size within the bounds of all models does not fit the files, which is said by key.
        let named = error.contains("config.json") || error.contains("the checkpoint does not fit");
        assert!(named, "{pointer} = {value}: {error}");
    };
    for pointer in integers {
        for value in large.into_iter().chain([0]) {
            // A context or BERT's unused tables may be longer than these files', within reason.
            let harmless = ["max_position_embeddings", "qformer/vocab_size", "cross_attention_freq"];
            if !(value <= 10_000_000 && value > 0 && harmless.iter().any(|end| pointer.ends_with(end))) {
                refused(pointer, value.into());
            }
        }
    }
    for pointer in reals {
        for value in [-1e-5, 1e300] {
            refused(pointer, value.into());
        }
        // In f32, which norms are computed in, this is zero.
        if pointer.ends_with("eps") {
            refused(pointer, 1e-320.into());
        }
    }
    std::fs::write(&path, whole.to_string()).unwrap();
    assert!(load(dir.path()).is_ok());
}

#[test]
fn a_size_out_of_bounds_is_said_with_its_range() {
    let dir = tempfile::tempdir().unwrap();
    save_model(&tiny(50).init(&Device::flex()).unwrap(), dir.path(), &SaveOptions::default()).unwrap();
    let path = dir.path().join("config.json");
    let mut json = json_of(&path);
    json["tg_llava"]["perceiver"]["depth"] = (1 << 20).into();
    std::fs::write(&path, json.to_string()).unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("config.json: tg_llava.perceiver.depth = 1048576; it must be between 1 and"),
        "{error}"
    );
}
