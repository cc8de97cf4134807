//! Samples, folders and numbers that no model can be made of.

use super::*;

/// The text fits; with the picture's tokens the answer does not. Such a sample is bad like any other.
#[test]
fn an_answer_behind_the_longest_length_is_named_or_skipped() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = data_file(dir.path(), |_| true);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    samples.truncate(6);
    let behind = |sample: &mut serde_json::Value, id: &str| {
        sample["id"] = id.into();
        sample["conversations"][0]["value"] = format!("<image>\n{}", "is ".repeat(105)).into();
    };
    behind(&mut samples[1], "behind-1");
    behind(&mut samples[4], "behind-4");
    std::fs::write(&path, serde_json::to_string(&samples).unwrap()).unwrap();
    for batch_size in [1, 2] {
        for generate in [false, true] {
            let out = dir.path().join(format!("out{batch_size}{generate}"));
            let mut config = everything(config(Stage::Finetune, &out, 6));
            config.data.path = vec![path.clone()];
            config.run.batch_size = batch_size;
            config.data.validation = Some(ValidationOptions {
                path: Some(path.clone()),
                every: Steps::Count(3),
                generate,
                max_new_tokens: 2,
                ..ValidationOptions::default()
            });
            let error = open(&config).unwrap().run(&mut Quiet).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, RunError::Data(_)), "{text}");
            assert!(text.contains("sample behind-") && text.contains("model.max_length"), "{text}");
            config.data.on_bad_sample = OnBadSample::Skip;
            let summary = run(&config);
            assert_eq!(summary.steps, 6);
            for id in ["behind-1", "behind-4"] {
                assert!(summary.notices.iter().any(|notice| notice.message.contains(id)), "{id}");
            }
        }
    }
}

/// A wrong image folder with `on_bad_sample = skip`: every sample is left out.
#[test]
fn a_run_that_learns_nothing_is_an_error_and_saves_no_model() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for (name, steps) in [("by the last step", 3), ("by the first epoch", 400)] {
        let mut config = everything(config(Stage::Finetune, &dir.path().join(name), steps));
        config.data.image_folder = Some(empty.clone());
        config.data.on_bad_sample = OnBadSample::Skip;
        let error = open(&config).unwrap().run(&mut Quiet).unwrap_err();
        let RunError::NothingLearned { steps: made, .. } = error else { panic!("{error}") };
        assert_eq!(made, steps.min(124), "{name}");
        let text = error.to_string();
        assert!(
            text.contains("samples left out") && text.contains("train-") && text.contains("empty"),
            "{text}"
        );
        assert!(!config.output_dir.join("model.safetensors").exists());
        let records = read_metrics(config.output_dir.join("metrics.jsonl")).unwrap();
        let mut steps = records.iter().filter_map(|record| match record {
            Record::Step(step) => Some(step),
            _ => None,
        });
        assert!(steps.all(|step| step.skipped && step.loss.is_nan()));
    }
}

#[test]
fn a_run_does_not_write_where_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    copy_folder(&examples().join("runs/easy-vqa/model"), &model);
    let bridges = dir.path().join("bridges");
    std::fs::create_dir(&bridges).unwrap();
    let outputs = [
        (model.clone(), "model.path"),
        (model.join("../model/out"), "model.path"),
        (bridges.clone(), "model.bridges"),
    ];
    for (output, key) in outputs {
        let mut config = config(Stage::Pretrain, &output, 2);
        config.model.path = model.clone();
        config.model.bridges = Some(Bridges::Folder(bridges.clone()));
        let error = ModelSetup::new(&config).unwrap_err().to_string();
        assert!(error.contains("output_dir") && error.contains(key), "{error}");
    }
    // Its own checkpoint would be rotated away.
    let mut config = config(Stage::Finetune, dir.path(), 2);
    config.model.path = dir.path().join("checkpoint-7");
    copy_folder(&model, &config.model.path);
    assert!(ModelSetup::new(&config).is_err());
    config.model.path = model;
    assert!(ModelSetup::new(&config).is_ok());
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_or_is_left_out() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let mut config = everything(config(Stage::Finetune, dir.path(), 8));
    config.optim.lr = 1e30;
    config.optim.warmup_ratio = Some(0.0);
    let error = open(&config).unwrap().run(&mut Quiet).unwrap_err().to_string();
    assert!(error.contains("train-") && error.contains("on_nan"), "{error}");
    config.output_dir = dir.path().join("skip");
    config.optim.on_nan = tg_llava_train::config::OnNan::Skip;
    let summary = run(&config);
    assert_eq!(summary.steps, 8);
}
