//! Whole runs on one to four ranks, which are threads here: they end in the same bits.
//!
//! The CPU backends have one random generator a process, so these tests take turns.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Device};
use tg_llava_tests::{examples, saved};
use tg_llava_train::config::{PerComponent, Stage, Steps, TrainConfig, ValidationOptions};
use tg_llava_train::data::OnBadSample;
use tg_llava_train::log::{EvalRecord, Record, StepRecord, read_metrics};
use tg_llava_train::parallel::{Collective, Local, ParallelError};
use tg_llava_train::run::{Observer, Quiet, RunError, Session, SessionOptions, Summary};
use tg_llava_train::start::{ModelSetup, open_data};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Five steps of five micro-batches of two samples, every third without a picture; dropout is on.
fn config(stage: Stage, dir: &Path, output_dir: &Path) -> TrainConfig {
    let mut config = tg_llava_tests::config(stage, output_dir);
    config.data.path = vec![data_file(dir)];
    // Questions and answers in both stages.
    config.model.template = None;
    config.run.batch_size = 2;
    config.run.global_batch_size = Some(10);
    config.run.max_steps = Some(5);
    config.optim.weight_decay = 0.1;
    config
}

/// The small slice of easy-VQA, every third sample without its picture.
fn data_file(dir: &Path) -> PathBuf {
    let text = std::fs::read_to_string(examples().join("data/easy-vqa/train.json")).unwrap();
    let mut samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    for sample in samples.iter_mut().step_by(3) {
        sample.as_object_mut().unwrap().remove("image");
        let question = &mut sample["conversations"][0]["value"];
        *question = question.as_str().unwrap().replace("<image>", "").trim().into();
    }
    let path = dir.join("data.json");
    std::fs::write(&path, serde_json::to_string(&samples).unwrap()).unwrap();
    path
}

/// Opens and runs `config` on every rank, each with an observer of its own.
fn on_ranks<O: Observer + Send>(
    config: &TrainConfig,
    (size, local_size): (usize, usize),
    dtype: DType,
    observer: impl Fn(usize) -> O + Sync,
) -> Vec<Result<Summary, RunError>> {
    let rank = |local: Local| {
        let world = local.world();
        config.validate().unwrap();
        let setup = ModelSetup::new(config)?;
        let data = open_data(config, &setup, world.size())?;
        let collective = Box::new(local);
        let options = SessionOptions { collective, ..SessionOptions::alone(Device::flex(), dtype, false) };
        Session::open(config.clone(), setup, data, options, &mut |_| {})?.run(&mut observer(world.rank()))
    };
    Local::run(size, local_size, rank).unwrap()
}

fn run(config: &TrainConfig, ranks: usize, dtype: DType) -> Vec<Summary> {
    on_ranks(config, (ranks, ranks), dtype, |_| Quiet).into_iter().map(Result::unwrap).collect()
}

/// What does not depend on clocks: step, loss, norm, and whether the weights stayed as they were.
fn steps(dir: &Path) -> Vec<(usize, u64, Option<u64>, bool)> {
    let records = read_metrics(dir.join("metrics.jsonl")).unwrap();
    let step = |record: Record| match record {
        Record::Step(r) => Some((r.step, r.loss.to_bits(), r.grad_norm.map(f64::to_bits), r.skipped)),
        _ => None,
    };
    records.into_iter().filter_map(step).collect()
}

/// Ends like one rank, on every number of ranks.
fn ends_alike(
    change: impl Fn(&mut TrainConfig),
    stage: Stage,
    dtype: DType,
) -> Vec<(usize, u64, Option<u64>, bool)> {
    let dir = tempfile::tempdir().unwrap();
    let outcome = |ranks: usize| {
        let out = dir.path().join(format!("ranks-{ranks}"));
        let mut config = config(stage, dir.path(), &out);
        change(&mut config);
        let summaries = run(&config, ranks, dtype);
        assert!(summaries.iter().all(|s| s.steps == 5 && s.loss.to_bits() == summaries[0].loss.to_bits()));
        (steps(&out), saved(&out))
    };
    let one = outcome(1);
    assert_eq!(one.0.len(), 5);
    for ranks in 2..=4 {
        let many = outcome(ranks);
        assert_eq!(many.0, one.0, "{stage:?} on {ranks} ranks");
        assert!(many.1 == one.1, "{stage:?} on {ranks} ranks: the weights differ");
    }
    one.0
}

#[test]
fn stage_one_ends_in_the_same_bits_on_any_number_of_ranks() {
    let _turn = turn();
    ends_alike(|_| {}, Stage::Pretrain, DType::F32);
    ends_alike(|config| config.run.gradient_checkpointing = true, Stage::Pretrain, DType::F32);
}

#[test]
fn stage_two_ends_in_the_same_bits_on_any_number_of_ranks() {
    let _turn = turn();
    ends_alike(|_| {}, Stage::Finetune, DType::F32);
    let all = |config: &mut TrainConfig| {
        config.train = PerComponent::from_fn(|_| true);
        config.run.gradient_checkpointing = true;
        config.optim.loss_mean = tg_llava_train::engine::LossMean::Tokens;
    };
    ends_alike(all, Stage::Finetune, DType::F32);
}

#[test]
fn an_adapter_ends_in_the_same_bits_on_any_number_of_ranks() {
    let _turn = turn();
    let base = tempfile::tempdir().unwrap();
    tg_llava_tests::save_base(base.path());
    for recompute in [false, true] {
        let change = |config: &mut TrainConfig| {
            let adapter = tg_llava_tests::adapter_config(base.path(), &config.output_dir);
            (config.model, config.lora) = (adapter.model, adapter.lora);
            config.run.gradient_checkpointing = recompute;
        };
        ends_alike(change, Stage::Finetune, DType::F32);
    }
}

/// In f16 the first scales are too large for some micro-batches: one rank's overflow holds up all.
#[test]
fn an_overflow_on_one_rank_is_an_overflow_on_all() {
    let _turn = turn();
    for recompute in [false, true] {
        let change = |config: &mut TrainConfig| config.run.gradient_checkpointing = recompute;
        let steps = ends_alike(change, Stage::Finetune, DType::F16);
        let skipped = steps.iter().filter(|step| step.3).count();
        assert!((1..5).contains(&skipped), "{steps:?}");
    }
}

#[test]
fn a_run_saved_by_four_ranks_goes_on_with_three() {
    let _turn = turn();
    for (stage, dtype) in
        [(Stage::Pretrain, DType::F32), (Stage::Finetune, DType::F32), (Stage::Finetune, DType::BF16)]
    {
        let dir = tempfile::tempdir().unwrap();
        let outcome = |worlds: &[usize]| {
            let out = dir.path().join(format!("{worlds:?}"));
            let mut config = config(stage, dir.path(), &out);
            config.run.max_steps = Some(8);
            config.run.save_steps = Steps::Count(4);
            config.data.validation = Some(ValidationOptions {
                fraction: Some(0.05),
                every: Steps::Count(4),
                batch_size: 5,
                ..ValidationOptions::default()
            });
            for &ranks in worlds {
                let last = worlds.last() == Some(&ranks);
                let observer = |_| StopAfter(if last { usize::MAX } else { 4 });
                for summary in on_ranks(&config, (ranks, ranks), dtype, observer) {
                    assert_eq!(summary.unwrap().interrupted, !last);
                }
                // Several ranks ask one another before a step's end, so they see the wish in the next one.
                if !last && ranks > 1 {
                    std::fs::remove_dir_all(out.join("checkpoint-5")).unwrap();
                }
            }
            let checks =
                read_metrics(out.join("metrics.jsonl")).unwrap().into_iter().filter_map(|r| match r {
                    Record::Eval(check) => Some((check.step, check.loss.to_bits(), check.samples)),
                    _ => None,
                });
            (steps(&out), saved(&out), checks.collect::<Vec<_>>())
        };
        let whole = outcome(&[1]);
        for worlds in [&[4, 3][..], &[4, 1], &[1, 2]] {
            let parts = outcome(worlds);
            assert_eq!(parts.0, whole.0, "{stage:?} {dtype:?} {worlds:?}");
            assert!(parts.1 == whole.1, "{stage:?} {dtype:?} {worlds:?}: the weights differ");
            assert_eq!(parts.2, whole.2, "{stage:?} {dtype:?} {worlds:?}: the checks differ");
        }
    }
}

/// Wants to stop after a number of steps, as Ctrl-C does.
struct StopAfter(usize);

impl Observer for StopAfter {
    fn step(&mut self, _record: &StepRecord, _progress: (usize, usize)) {
        self.0 = self.0.saturating_sub(1);
    }
    fn evaluated(&mut self, _record: &EvalRecord) {}
    fn note(&mut self, _text: &str) {}
    fn should_stop(&mut self) -> bool {
        self.0 == 0
    }
}

/// Each node holds all slices; sums over the nodes come in between.
#[test]
fn two_nodes_of_two_agree_with_each_other() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let outcome = |ranks: (usize, usize)| {
        let out = dir.path().join(format!("{ranks:?}"));
        let mut config = config(Stage::Finetune, dir.path(), &out);
        config.run.max_steps = Some(2);
        let summaries = on_ranks(&config, ranks, DType::F32, |_| Quiet);
        let losses = summaries.into_iter().map(|summary| summary.unwrap().loss.to_bits());
        assert!(losses.collect::<std::collections::BTreeSet<_>>().len() == 1, "the ranks differ");
        (steps(&out), saved(&out))
    };
    let (one, two) = (outcome((1, 1)), outcome((4, 2)));
    // Sums over nodes are in another order: equal but for rounding.
    for (one, two) in one.0.iter().zip(&two.0) {
        let (one, two) = (f64::from_bits(one.1), f64::from_bits(two.1));
        assert!((one - two).abs() < 1e-5 * one, "{one} and {two}");
    }
    assert_eq!(one.1.keys().collect::<Vec<_>>(), two.1.keys().collect::<Vec<_>>());
}

/// 248 samples in steps of 20: the last step of an epoch is filled up from its start, whoever computes it.
#[test]
fn epochs_end_alike_on_any_number_of_ranks() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let outcome = |worlds: &[usize]| {
        let out = dir.path().join(format!("{worlds:?}"));
        let mut config = config(Stage::Pretrain, dir.path(), &out);
        (config.run.batch_size, config.run.global_batch_size) = (4, Some(20));
        (config.run.max_steps, config.run.epochs) = (None, 1.5);
        config.run.save_steps = Steps::Count(13);
        for (at, &ranks) in worlds.iter().enumerate() {
            let last = at + 1 == worlds.len();
            for summary in
                on_ranks(&config, (ranks, ranks), DType::F32, |_| StopAfter(if last { 99 } else { 13 }))
            {
                // 13 steps an epoch, and a half of them once more.
                assert_eq!(summary.unwrap().total_steps, 20);
            }
        }
        (steps(&out), saved(&out))
    };
    let whole = outcome(&[1]);
    assert_eq!(whole.0.len(), 20);
    for worlds in [&[3][..], &[1, 2]] {
        assert!(outcome(worlds) == whole, "{worlds:?}");
    }
}

#[test]
fn a_bad_sample_on_one_rank_ends_all_with_its_name() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(Stage::Finetune, dir.path(), &dir.path().join("out"));
    let text = std::fs::read_to_string(&config.data.path[0]).unwrap();
    let mut samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    samples[5]["image"] = "no-such.png".into();
    samples[5]["id"] = "lost".into();
    std::fs::write(&config.data.path[0], serde_json::to_string(&samples).unwrap()).unwrap();
    config.data.order = tg_llava_train::data::SampleOrder::Sequential;
    let results = on_ranks(&config, (3, 3), DType::F32, |_| Quiet);
    for (rank, result) in results.iter().enumerate() {
        let error = result.as_ref().unwrap_err();
        assert!(error.to_string().contains("lost"), "{error}");
        // The third micro-batch is that of the third rank.
        match rank {
            2 => assert!(matches!(error, RunError::Data(_)), "{error}"),
            _ => {
                assert!(matches!(error, RunError::Parallel(ParallelError::Other { rank: 2, .. })), "{error}")
            }
        }
    }
    // Where such samples are skipped, every rank's are counted.
    config.data.on_bad_sample = OnBadSample::Skip;
    let summaries = run(&config, 3, DType::F32);
    assert!(summaries.iter().all(|s| s.notices.len() == 1 && s.notices[0].message.contains("lost")));
}

#[test]
fn ranks_that_were_started_otherwise_are_told() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let rank = |local: Local| -> Result<(), RunError> {
        let mut config = config(Stage::Finetune, dir.path(), &dir.path().join("out"));
        config.optim.lr *= (1 + local.world().rank()) as f64;
        let setup = ModelSetup::new(&config)?;
        let data = open_data(&config, &setup, 2)?;
        let collective = Box::new(local);
        let options =
            SessionOptions { collective, ..SessionOptions::alone(Device::flex(), DType::F32, false) };
        Session::open(config, setup, data, options, &mut |_| {}).map(|_| ())
    };
    let results = Local::run(2, 2, rank).unwrap();
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error, RunError::Parallel(ParallelError::Unlike { rank: 1, .. })), "{error}");
        assert!(error.to_string().contains("optimizer"), "{error}");
    }
}
