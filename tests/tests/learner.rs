//! The trainer's parts under burn-train's own strategy, beside our loop; alone in its file, since the CPU backends have one
//! random generator a process.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::tensor::{DType, Device};
use burn::train::renderer::CliMetricsRenderer;
use burn::train::{ExecutionStrategy, Learner, SupervisedTraining};
use tg_llava_tests::{config, weights};
use tg_llava_train::config::Stage;
use tg_llava_train::learner::{EpochLoader, Learning};
use tg_llava_train::run::{Quiet, Session, SessionOptions};
use tg_llava_train::start::{ModelSetup, open_data};

/// One epoch over the small slice of easy-VQA.
fn open(output_dir: &Path) -> Session {
    let mut config = config(Stage::Finetune, output_dir);
    config.run.batch_size = 31;
    config.optim.weight_decay = 0.1;
    let setup = ModelSetup::new(&config).unwrap();
    let data = open_data(&config, &setup, 1).unwrap();
    let options = SessionOptions::alone(Device::flex(), DType::F32, false);
    Session::open(config, setup, data, options, &mut |_| {}).unwrap()
}

#[test]
fn burn_trains_single_device_strategy_ends_in_the_bits_of_our_loop() {
    let ours = tempfile::tempdir().unwrap();
    let mut session = open(ours.path());
    let before = weights(session.trainer().model());
    let summary = session.run(&mut Quiet).unwrap();
    assert_eq!(summary.steps, 8);

    let theirs = tempfile::tempdir().unwrap();
    let start = open(theirs.path());
    let learning = Learning::new(start.trainer().model().clone(), start.trainer().options().clone());
    let (optimizer, rate) = (learning.optimizer(), learning.rate());
    let train = Arc::new(EpochLoader::new(start.shared_data(), 31));
    let valid = train.slice(0, 31);
    assert_eq!((train.num_items(), valid.num_items()), (248, 31));
    let training = SupervisedTraining::new(theirs.path().join("burn"), train, valid)
        .with_training_strategy(ExecutionStrategy::SingleDevice(Device::flex().autodiff()).into())
        .with_application_logger(None)
        .renderer(Box::new(CliMetricsRenderer::new()))
        .num_epochs(1);
    let result = training.launch(Learner::new(learning, optimizer, rate));
    assert!(result.error.is_none(), "{:?}", result.error);

    let (a, b) = (weights(session.trainer().model()), weights(&result.model.into_model()));
    assert_ne!(a, before);
    for (key, value) in &a {
        assert_eq!(value, &b[key], "{key}");
    }
}
