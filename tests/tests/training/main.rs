//! Whole runs of the trainer on the small slice of easy-VQA, with dropout on.
//!
//! The CPU backends have one random generator a process, so these tests take turns.

mod adapters;
mod arithmetic;
mod refused;
mod resume;
mod stages;
mod validation;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Device};
use tg_llava_tests::{examples, saved};
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

/// The samples of easy-VQA's training file whose answers `keep` takes, as a file in `dir`.
fn data_file(dir: &Path, keep: impl Fn(&str) -> bool) -> PathBuf {
    let path = dir.join("data.json");
    let text = std::fs::read_to_string(examples().join("data/easy-vqa/train.json")).unwrap();
    let mut samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    samples.retain(|sample| keep(sample["conversations"][1]["value"].as_str().unwrap()));
    std::fs::write(&path, serde_json::to_string(&samples).unwrap()).unwrap();
    path
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
