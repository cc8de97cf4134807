//! Stopped runs go on, and only from what they stopped with.

use super::*;

#[test]
fn a_run_stopped_after_any_step_resumes_to_the_same_bits() {
    let _turn = turn();
    for stage in [Stage::Pretrain, Stage::Finetune] {
        let whole = tempfile::tempdir().unwrap();
        run(&config(stage, whole.path(), 12));
        for stop in 1..12 {
            let parts = tempfile::tempdir().unwrap();
            let config = config(stage, parts.path(), 12);
            let summary = open(&config).unwrap().run(&mut StopAfter(stop)).unwrap();
            assert!(summary.interrupted && summary.steps == stop);
            let summary = run(&config);
            assert!(!summary.interrupted && summary.steps == 12);
            assert_eq!(losses(parts.path()), losses(whole.path()), "{stage:?}, stopped after {stop}");
            assert!(saved(parts.path()) == saved(whole.path()), "{stage:?}, stopped after {stop}");
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_is_used() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let mut config = everything(config(Stage::Finetune, dir.path(), 6));
    config.run.save_steps = Steps::Count(2);
    open(&config).unwrap().run(&mut StopAfter(4)).unwrap();
    let file = dir.path().join("checkpoint-4/optimizer.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let session = open(&config).unwrap();
    let told = session.messages().join("\n");
    assert!(told.contains("optimizer.safetensors") && told.contains("after step 2"), "{told}");
    assert_eq!(session.trainer().steps(), 2);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let config = everything(config(Stage::Finetune, dir.path(), 2));
    run(&config);
    let mut other = config.clone();
    other.run.batch_size = 3;
    other.optim.lr = 0.5;
    let error = open(&other).err().unwrap().to_string();
    assert!(error.contains("batch size") && error.contains("lr = 0.5"), "{error}");
}

/// Data and tokenizer are compared by what they hold, not by how much.
#[test]
fn changed_data_or_another_tokenizer_are_not_resumed() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let data = data_file(dir.path(), |_| true);
    let model = dir.path().join("model");
    copy_folder(&examples().join("runs/easy-vqa/model"), &model);
    let mut config = everything(config(Stage::Finetune, &dir.path().join("out"), 4));
    config.data.path = vec![data.clone()];
    config.model.path = model.clone();
    open(&config).unwrap().run(&mut StopAfter(2)).unwrap();
    let change = |path: &Path, from: &str, to: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
        let error = open(&config).err().map(|error| error.to_string());
        std::fs::write(path, text).unwrap();
        error.expect("a refusal")
    };
    let error = change(&data, "\"gpt\",", "\"gpt\" ,");
    assert!(error.contains("contents of data.path: not the same"), "{error}");
    let error = change(&model.join("tokenizer.json"), "{", "{ ");
    assert!(error.contains("tokenizer.json of the start: not the same"), "{error}");
    let error = change(&model.join("clip-tower/preprocessor_config.json"), "{", "{ ");
    assert!(error.contains("preprocessor_config.json of the vision tower"), "{error}");
    std::fs::write(model.join("added_tokens.json"), "{}").unwrap();
    let error = open(&config).err().unwrap().to_string();
    assert!(
        error.contains("tokenizer files of the start: `tokenizer.json") && error.contains("added_tokens"),
        "{error}"
    );
    std::fs::remove_file(model.join("added_tokens.json")).unwrap();
    // The same contents elsewhere are the same run.
    let moved = dir.path().join("moved.json");
    std::fs::rename(&data, &moved).unwrap();
    config.data.path = vec![moved];
    assert_eq!(open(&config).unwrap().trainer().steps(), 2);
}

#[test]
fn an_output_folder_has_one_run_at_a_time() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let config = everything(config(Stage::Finetune, dir.path(), 2));
    let first = open(&config).unwrap();
    let error = open(&config).err().unwrap();
    assert!(matches!(error, RunError::Busy { .. }), "{error}");
    drop(first);
    // What a killed save leaves goes at the next start; what is not ours stays.
    for name in [".tmpAb12yZ", "model.safetensors.partial", "mm_projector.bin.partial", "mine.partial"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let session = open(&config).unwrap();
    assert_eq!(session.messages().iter().filter(|m| m.contains("interrupted save")).count(), 3);
    assert!(dir.path().join("mine.partial").exists() && !dir.path().join(".tmpAb12yZ").exists());
}
