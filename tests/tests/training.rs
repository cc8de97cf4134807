//! Whole runs of the trainer on the small slice of easy-VQA, with dropout on.
//!
//! The CPU backends have one random generator a process, so these tests take turns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Device};
use tg_llava_tests::examples;
use tg_llava_train::config::{
    Bridges, Component, Init, PerComponent, Stage, Steps, TrainConfig, ValidationOptions,
};
use tg_llava_train::data::OnBadSample;
use tg_llava_train::engine::{LossMean, Trainer};
use tg_llava_train::log::{EvalRecord, Record, StepRecord, read_metrics};
use tg_llava_train::run::{Observer, Quiet, RunError, Session, SessionOptions, Summary};
use tg_llava_train::start::{ModelSetup, open_data};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run of `steps` steps over two samples each.
fn config(stage: Stage, output_dir: &Path, steps: usize) -> TrainConfig {
    let mut config = tg_llava_tests::config(stage, output_dir);
    config.run.batch_size = 2;
    config.run.max_steps = Some(steps);
    config
}

fn everything(mut config: TrainConfig) -> TrainConfig {
    config.train = PerComponent::from_fn(|_| true);
    config
}

fn open(config: &TrainConfig) -> Result<Session, RunError> {
    open_in(config, DType::F32)
}

fn open_in(config: &TrainConfig, dtype: DType) -> Result<Session, RunError> {
    config.validate().unwrap();
    let setup = ModelSetup::new(config)?;
    let data = open_data(config, &setup, 1)?;
    let options = SessionOptions::alone(Device::flex(), dtype, false);
    Session::open(config.clone(), setup, data, options, &mut |_| {})
}

fn run(config: &TrainConfig) -> Summary {
    open(config).unwrap().run(&mut Quiet).unwrap()
}

fn weights(trainer: &Trainer) -> BTreeMap<String, Vec<f32>> {
    tg_llava_tests::weights(trainer.model())
}

/// The bytes of every weight file in `dir`.
fn saved(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

fn losses(dir: &Path) -> Vec<(usize, f64)> {
    let records = read_metrics(dir.join("metrics.jsonl")).unwrap();
    let step = |record: Record| match record {
        Record::Step(step) => Some((step.step, step.loss)),
        _ => None,
    };
    records.into_iter().filter_map(step).collect()
}

/// Stops after a number of steps, as Ctrl-C does.
struct StopAfter(usize);

impl Observer for StopAfter {
    fn step(&mut self, _record: &StepRecord, _progress: (usize, usize)) {
        self.0 -= 1;
    }
    fn evaluated(&mut self, _record: &EvalRecord) {}
    fn note(&mut self, _text: &str) {}
    fn should_stop(&mut self) -> bool {
        self.0 == 0
    }
}

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
fn equal_seeds_give_equal_bits_and_others_do_not() {
    let _turn = turn();
    let runs = [7, 7, 8].map(|seed| {
        let dir = tempfile::tempdir().unwrap();
        run(&TrainConfig { seed, ..everything(config(Stage::Finetune, dir.path(), 4)) });
        saved(dir.path())
    });
    assert!(runs[0] == runs[1] && runs[0] != runs[2]);
}

#[test]
fn what_is_frozen_never_changes() {
    let _turn = turn();
    for component in Component::ALL {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(Stage::Finetune, dir.path(), 3);
        config.train = PerComponent::from_fn(|other| other != component);
        let mut session = open(&config).unwrap();
        let before = weights(session.trainer());
        session.run(&mut Quiet).unwrap();
        let after = weights(session.trainer());
        let prefix = match component {
            Component::VisionTower => "model.vision_tower.",
            Component::TextTower => "model.text_tower.",
            Component::FeatureGuide => "model.mm_cross_attn.",
            Component::DetailPerceiver => "model.mm_patch_encoder.",
            Component::Projector => "model.mm_projector.",
            Component::Llm => "model.layers.",
        };
        let changed = |inside: bool| {
            before
                .iter()
                .filter(|(key, old)| key.starts_with(prefix) == inside && after[*key] != **old)
                .count()
        };
        assert_eq!(changed(true), 0, "{component:?}");
        assert!(changed(false) > 20, "{component:?}: only {} others changed", changed(false));
    }
}

/// Dropout falls alike in both, so they may differ by rounding alone.
#[test]
fn recompute_equals_plain() {
    let _turn = turn();
    let [plain, recomputed] = [false, true].map(|recompute| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = everything(config(Stage::Finetune, dir.path(), 3));
        config.run.gradient_checkpointing = recompute;
        config.run.loss_chunk = if recompute { 2 } else { 1024 };
        let mut session = open(&config).unwrap();
        session.run(&mut Quiet).unwrap();
        (losses(dir.path()), weights(session.trainer()))
    });
    for ((_, a), (_, b)) in plain.0.iter().zip(&recomputed.0) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    for (key, values) in &plain.1 {
        // Adam turns a gradient that is zero but for rounding into a step of the learning rate.
        let far = values.iter().zip(&recomputed.1[key]).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
        assert!(far * 50 <= values.len(), "{key}: {far} of {} values differ", values.len());
    }
}

/// The samples of easy-VQA's training file whose answers `keep` takes, as a file in `dir`.
fn data_file(dir: &Path, keep: impl Fn(&str) -> bool) -> PathBuf {
    let path = dir.join("data.json");
    let text = std::fs::read_to_string(examples().join("data/easy-vqa/train.json")).unwrap();
    let mut samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    samples.retain(|sample| keep(sample["conversations"][1]["value"].as_str().unwrap()));
    std::fs::write(&path, serde_json::to_string(&samples).unwrap()).unwrap();
    path
}

/// Losses of three steps over four samples each, as one batch and as four.
fn one_batch_and_four(data: &Path, mean: LossMean) -> [Vec<(usize, f64)>; 2] {
    [(4, 1), (1, 4)].map(|(batch_size, accumulation)| {
        let out = tempfile::tempdir().unwrap();
        let mut config = everything(config(Stage::Finetune, out.path(), 3));
        config.data.path = vec![data.to_path_buf()];
        config.data.order = tg_llava_train::data::SampleOrder::Shuffled;
        config.model.dropout = Some(0.0);
        config.optim.loss_mean = mean;
        (config.run.batch_size, config.run.accumulation) = (batch_size, accumulation);
        run(&config);
        losses(out.path())
    })
}

fn farthest(losses: &[Vec<(usize, f64)>; 2]) -> f64 {
    losses[0].iter().zip(&losses[1]).map(|((_, a), (_, b))| (a - b).abs()).fold(0.0, f64::max)
}

/// With as many supervised tokens in each micro-batch, the mean of means is the mean.
#[test]
fn accumulation_equals_the_large_batch() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let data = data_file(dir.path(), |answer| ["yes", "no"].contains(&answer));
    let losses = one_batch_and_four(&data, LossMean::MicroBatches);
    assert!(farthest(&losses) < 2e-5, "{losses:?}");
}

/// Where answers differ in length, the mean over tokens alone is that of the large batch.
#[test]
fn the_mean_over_tokens_is_that_of_the_large_batch() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lengths.json");
    let text = std::fs::read_to_string(data_file(dir.path(), |_| true)).unwrap();
    let mut samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (at, sample) in samples.iter_mut().enumerate() {
        let answer = sample["conversations"][1]["value"].as_str().unwrap();
        sample["conversations"][1]["value"] = [answer].repeat(1 + 3 * (at % 3)).join(" ").into();
    }
    std::fs::write(&path, serde_json::to_string(&samples).unwrap()).unwrap();
    let by_tokens = one_batch_and_four(&path, LossMean::Tokens);
    assert!(farthest(&by_tokens) < 2e-5, "{by_tokens:?}");
    let by_batches = one_batch_and_four(&path, LossMean::MicroBatches);
    assert!(farthest(&by_batches) > 1e-3, "{by_batches:?}");
}

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

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy_folder(&path, &to.join(name)),
            false => drop(std::fs::copy(&path, to.join(name)).unwrap()),
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

/// Neither an unreadable picture, nor a prompt that is too long, nor a picture mark in an answer.
#[test]
fn validation_never_ends_a_run_and_comes_after_the_save() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(data_file(dir.path(), |_| true)).unwrap();
    let samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 3] = [
        ("picture", |sample| sample["image"] = "no_such.png".into()),
        ("long", |sample| {
            sample["conversations"][0]["value"] = format!("<image>\n{}", "is ".repeat(2000)).into()
        }),
        ("mark", |sample| {
            sample["conversations"][0]["value"] = "What?".into();
            sample["conversations"][1]["value"] = "<image>".into();
        }),
    ];
    for (name, change) in changes {
        let path = dir.path().join(format!("{name}.json"));
        let mut held: Vec<serde_json::Value> = samples[..3].to_vec();
        held[1]["id"] = name.into();
        change(&mut held[1]);
        std::fs::write(&path, serde_json::to_string(&held).unwrap()).unwrap();
        let mut config = everything(config(Stage::Finetune, &dir.path().join(name), 4));
        config.run.save_steps = Steps::Count(2);
        config.data.validation = Some(ValidationOptions {
            path: Some(path),
            every: Steps::Count(2),
            generate: true,
            max_new_tokens: 2,
            ..ValidationOptions::default()
        });
        let mut heard = Notes::default();
        let summary = open(&config).unwrap().run(&mut heard).unwrap();
        assert_eq!((summary.steps, summary.interrupted), (4, false), "{name}");
        assert!(config.output_dir.join("checkpoint-2").is_dir());
    }
}

/// Keeps what it is told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn step(&mut self, _record: &StepRecord, _progress: (usize, usize)) {}
    fn evaluated(&mut self, _record: &EvalRecord) {}
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

/// Stopped within the check of a step that is saved already, a run makes up for it and finds the same best step.
#[test]
fn a_check_that_was_cut_short_is_made_up_for() {
    let _turn = turn();
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = |dir: &Path| {
        let mut config = everything(config(Stage::Finetune, dir, 6));
        config.run.save_steps = Steps::Count(2);
        config.data.validation = Some(ValidationOptions {
            fraction: Some(0.1),
            every: Steps::Count(2),
            samples: 6,
            ..ValidationOptions::default()
        });
        config
    };
    let checks = |dir: &Path| -> Vec<(usize, f64)> {
        let records = read_metrics(dir.join("metrics.jsonl")).unwrap();
        let check = |record: Record| match record {
            Record::Eval(check) => Some((check.step, check.loss)),
            _ => None,
        };
        records.into_iter().filter_map(check).collect()
    };
    let expected = run(&config(whole.path()));
    open(&config(parts.path())).unwrap().run(&mut StopAfter(4)).unwrap();
    assert_eq!(checks(parts.path()).len(), 1);
    let summary = run(&config(parts.path()));
    assert_eq!(checks(parts.path()), checks(whole.path()));
    assert_eq!(summary.best, expected.best);
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

#[test]
fn validation_keeps_the_best_checkpoint() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let mut config = everything(config(Stage::Finetune, dir.path(), 6));
    config.data.validation = Some(ValidationOptions {
        fraction: Some(0.1),
        every: Steps::Count(2),
        samples: 6,
        generate: true,
        max_new_tokens: 3,
        ..ValidationOptions::default()
    });
    config.run.save_total_limit = Some(1);
    let summary = run(&config);
    let evaluation = summary.evaluation.unwrap();
    assert!(evaluation.samples == 6 && evaluation.loss.is_finite() && evaluation.exact_match.is_some());
    let best = summary.best.unwrap();
    assert!(dir.path().join(format!("checkpoint-{}", best.step)).is_dir());
    assert!(dir.path().join("loss.png").is_file() && dir.path().join("run.toml").is_file());
}

#[test]
fn stage_one_leaves_bridges_that_stage_two_starts_from() {
    let _turn = turn();
    let (base, first, second) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A start with weights, as a downloaded decoder with towers has them.
    run(&everything(config(Stage::Finetune, base.path(), 1)));
    let from = |stage, out: &Path| {
        let mut config = config(stage, out, 2);
        config.model.path = base.path().to_path_buf();
        config.model.init = Init::Checkpoint;
        config
    };
    run(&from(Stage::Pretrain, first.path()));
    for name in ["mm_projector", "mm_cross_attn", "mm_patch_encoder"] {
        for extension in ["safetensors", "bin"] {
            assert!(first.path().join(format!("{name}.{extension}")).is_file(), "{name}.{extension}");
        }
    }
    assert!(!first.path().join("model.safetensors").exists());
    let mut config = from(Stage::Finetune, second.path());
    config.model.bridges = Some(Bridges::Folder(first.path().to_path_buf()));
    let session = open(&config).unwrap();
    let started = weights(session.trainer());
    let key = "model.mm_projector.0.weight";
    assert!(started[key] == projector(first.path()) && started[key] != projector_whole(base.path()));
    drop(session);
    run(&config);
    assert!(second.path().join("model.safetensors").is_file());
}

fn projector(dir: &Path) -> Vec<f32> {
    floats(&dir.join("mm_projector.safetensors"))
}

fn projector_whole(dir: &Path) -> Vec<f32> {
    floats(&dir.join("model.safetensors"))
}

fn floats(file: &Path) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor("model.mm_projector.0.weight").unwrap().data().to_vec();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
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

/// Half formats keep f32 weights and moments aside, and these are saved too.
#[test]
fn half_formats_follow_f32_and_resume_to_the_same_bits() {
    let _turn = turn();
    let [exact, bf16, f16] = [DType::F32, DType::BF16, DType::F16].map(|dtype| {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = |dir: &Path| everything(config(Stage::Finetune, dir, 6));
        open_in(&config(whole.path()), dtype).unwrap().run(&mut Quiet).unwrap();
        open_in(&config(parts.path()), dtype).unwrap().run(&mut StopAfter(3)).unwrap();
        open_in(&config(parts.path()), dtype).unwrap().run(&mut Quiet).unwrap();
        assert_eq!(losses(whole.path()), losses(parts.path()), "{dtype:?}");
        assert!(saved(whole.path()) == saved(parts.path()), "{dtype:?}");
        losses(whole.path())
    });
    for (other, tolerance) in [(bf16, 2e-2), (f16, 4e-3)] {
        for ((_, a), (_, b)) in exact.iter().zip(&other) {
            assert!((a - b).abs() < tolerance * a, "{a} {b}");
        }
    }
}
