//! A save takes the place of what was there.

use super::*;

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
