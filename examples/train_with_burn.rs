//! Trains with burn-train's own loop instead of `tg-llava-cli train`: one epoch over a LLaVA file, from random weights.
//!
//! `cargo run -p tg-llava-train --example train_with_burn -- MODEL_DIR DATA.json IMAGE_FOLDER OUTPUT_DIR`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use burn::data::dataloader::DataLoader;
use burn::tensor::{DType, Device};
use burn::train::metric::LossMetric;
use burn::train::{ExecutionStrategy, Learner, SupervisedTraining};
use tg_llava_core::weights::{SaveOptions, save_model};
use tg_llava_train::config::{Init, Stage, TrainConfig};
use tg_llava_train::learner::{EpochLoader, Learning};
use tg_llava_train::run::{total_steps, trainer_options};
use tg_llava_train::start::{ModelSetup, load_weights, open_data};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let mut next = |what: &str| args.next().with_context(|| format!("{what} is missing"));
    let mut config = TrainConfig::new(Stage::Finetune);
    config.model.path = next("MODEL_DIR")?;
    config.model.init = Init::Random;
    config.data.path = vec![next("DATA.json")?];
    config.data.image_folder = Some(next("IMAGE_FOLDER")?);
    config.output_dir = next("OUTPUT_DIR")?;
    config.run.batch_size = 31;
    config.optim.lr = 1e-3;

    let setup = ModelSetup::new(&config)?;
    let data = Arc::new(open_data(&config, &setup, 1)?);
    let device = Device::flex().autodiff();
    let model = load_weights(&config, &setup, None, &device, DType::F32, &mut |_| {})?.model;

    // Model, optimizer and schedule as burn-train takes them.
    let options = trainer_options(&config, total_steps(&config, data.len(), 1), DType::F32);
    let learning = Learning::new(model, options);
    let (optimizer, rate) = (learning.optimizer(), learning.rate());
    let train = Arc::new(EpochLoader::new(data, config.run.batch_size));
    let valid = train.slice(0, config.run.batch_size);

    let training = SupervisedTraining::new(config.output_dir.join("burn-train"), train, valid)
        .with_training_strategy(ExecutionStrategy::SingleDevice(device).into())
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .num_epochs(1);
    let result = training.launch(Learner::new(learning, optimizer, rate));
    if let Some(error) = result.error {
        anyhow::bail!("{error}");
    }
    let options = SaveOptions { template: Some(config.model.path.clone()), ..SaveOptions::default() };
    save_model(&result.model.into_model(), &config.output_dir, &options)?;
    println!("saved in {}", config.output_dir.display());
    Ok(())
}
