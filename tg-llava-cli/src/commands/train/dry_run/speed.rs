//! A few real steps, thrown away, to know how long the run will take.

use std::time::Instant;

use tg_llava_train::data::Micro;
use tg_llava_train::engine::Trainer;
use tg_llava_train::run::{total_steps, trainer_options};
use tg_llava_train::start::{TrainingData, load_weights};

use super::Plan;
use crate::console::Console;
use crate::failure::Failure;
use crate::progress::Progress;

/// Steps that are measured, after one that is not: the first one compiles kernels and fills caches.
const STEPS: usize = 3;

/// Median seconds of a step; `None` where there is no sample to learn from.
pub(super) fn measure(
    plan: &Plan<'_>,
    data: &TrainingData,
    console: &Console,
) -> Result<Option<f64>, Failure> {
    let Plan { config, setup, opened, .. } = *plan;
    let bar = Progress::spinner(console, "measuring a few steps");
    let device = opened.device.clone().autodiff();
    let input = |e: anyhow::Error| Failure::Input(e);
    let started = load_weights(config, setup, None, &device, opened.dtype, &mut |_| {});
    let started = started.map_err(|e| input(e.into()))?;
    let total = total_steps(config, data.len(), 1);
    let mut trainer = Trainer::new(started.model, trainer_options(config, total, opened.dtype));
    let order = data.epoch(0);
    let mut batches = order.chunks(config.run.batch_size).cycle();
    let mut seconds = Vec::new();
    for _ in 0..=STEPS {
        let start = Instant::now();
        let mut micros = Vec::new();
        for _ in 0..config.run.dealing(1).micro_batches {
            let Some(indices) = batches.next() else { continue };
            micros.push(data.loader.micro(indices, &data.model).map_err(|e| input(e.into()))?);
        }
        if micros.iter().all(Micro::is_empty) {
            return Ok(None);
        }
        trainer.step(&micros).map_err(|error| Failure::Run(error.into()))?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    drop(bar);
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    Ok(Some(seconds[seconds.len() / 2]))
}
