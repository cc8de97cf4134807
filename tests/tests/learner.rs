//! The trainer's parts under burn-train's own strategy, beside our loop; alone in its file, since the CPU backends have one
//! random generator a process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::data::dataloader::DataLoader;
use burn::tensor::{DType, Device};
use burn::train::renderer::CliMetricsRenderer;
use burn::train::{ExecutionStrategy, Learner, SupervisedTraining};
use tg_llava_tests::{config, weights};
use tg_llava_train::config::{Stage, TrainConfig};
use tg_llava_train::learner::{EpochLoader, Learning};
use tg_llava_train::run::{Quiet, Session, SessionOptions};
use tg_llava_train::start::{ModelSetup, open_data};

/// The generator is the process's, so one run goes at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One epoch over the small slice of easy-VQA.
fn epoch(mut config: TrainConfig) -> TrainConfig {
    config.run.batch_size = 31;
    config.optim.weight_decay = 0.1;
    config
}

fn open(config: &TrainConfig) -> Session {
    let setup = ModelSetup::new(config).unwrap();
    let data = open_data(config, &setup, 1).unwrap();
    let options = SessionOptions::alone(Device::flex(), DType::F32, false);
    Session::open(config.clone(), setup, data, options, &mut |_| {}).unwrap()
}

/// What is left of the run of `config` by our loop and by burn-train's own strategy.
fn by_both(config: impl Fn(&Path) -> TrainConfig) -> [BTreeMap<String, Vec<f32>>; 2] {
    let ours = tempfile::tempdir().unwrap();
    let mut session = open(&config(ours.path()));
    let before = weights(session.trainer().model());
    let summary = session.run(&mut Quiet).unwrap();
    assert_eq!(summary.steps, 8);

    let theirs = tempfile::tempdir().unwrap();
    let start = open(&config(theirs.path()));
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

    let after = weights(session.trainer().model());
    assert_ne!(after, before);
    [after, weights(&result.model.into_model())]
}

fn assert_same([ours, theirs]: &[BTreeMap<String, Vec<f32>>; 2]) {
    for (key, value) in ours {
        assert_eq!(value, &theirs[key], "{key}");
    }
}

#[test]
fn burn_trains_single_device_strategy_ends_in_the_bits_of_our_loop() {
    let _turn = turn();
    assert_same(&by_both(|dir| epoch(config(Stage::Finetune, dir))));
}

/// LoRA+: rates of their own for the adapter's second matrices, for a bridge, and for all else.
#[test]
fn an_adapters_second_matrices_learn_at_their_own_rate_under_burn_train_as_well() {
    let _turn = turn();
    let base = tempfile::tempdir().unwrap();
    tg_llava_tests::save_base(base.path());
    let config = |dir: &Path, ratio: f64| {
        let mut config = epoch(tg_llava_tests::adapter_config(base.path(), dir));
        config.lora.as_mut().unwrap().b_lr_ratio = ratio;
        config.optim.lr_of.llm = Some(5e-4);
        config.optim.lr_of.projector = Some(2e-4);
        config
    };
    let both = by_both(|dir| config(dir, 16.0));
    assert_same(&both);
    let plain = by_both(|dir| config(dir, 1.0));
    assert_same(&plain);
    let key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight";
    assert_ne!(both[0][key], plain[0][key]);
}
