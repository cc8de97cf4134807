//! What does not fit or is cut is named.

use super::*;

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
