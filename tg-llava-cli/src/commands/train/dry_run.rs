//! `--dry-run`: everything that can be known before the first step.

mod samples;
mod speed;

use tg_llava_core::burn::tensor::DType;
use tg_llava_train::config::{Component, TrainConfig};
use tg_llava_train::engine::ParameterTable;
use tg_llava_train::run::{total_steps, trainer_options};
use tg_llava_train::start::{MemoryForecast, ModelSetup, TrainingData, available_memory};

use self::samples::{Lengths, preview};
use crate::console::{Console, print, print_json};
use crate::device::{DeviceSpec, Opened};
use crate::failure::Failure;
use crate::progress::{short_bytes, short_count};

/// Points at which the schedule is shown.
const SCHEDULE_POINTS: usize = 9;

/// Checks samples and says what the run would be.
pub(super) fn run(
    config: &TrainConfig,
    setup: &ModelSetup,
    data: &TrainingData,
    opened: &Opened,
    console: &Console,
) -> Result<(), Failure> {
    let checked = samples::check(setup, data, console);
    let table = table(config, setup)?;
    let forecast = forecast(config, setup, &table, opened.dtype, checked.lengths.longest);
    let measured = match checked.problems.is_empty() {
        true => speed::measure(config, setup, data, opened, console)?,
        false => None,
    };
    let total = total_steps(config, data.len(), 1);
    if console.json {
        let value = serde_json::json!({
            "samples": data.len(),
            "problems": checked.problems,
            "lengths": checked.lengths,
            "parameters": { "trainable": table.trainable(), "total": table.total() },
            "steps": total,
            "memory": forecast,
            "memory_total": forecast.total(),
            "seconds_per_step": measured,
            "seconds": measured.map(|seconds| seconds * total as f64),
        });
        print_json(&value, true)?;
    } else {
        let mut text = preview(setup, data);
        text += &describe_samples(&checked.lengths, checked.problems.len(), setup);
        text += &describe_parameters(&table, console.verbose);
        text += &describe_schedule(config, total, opened.dtype);
        text += &describe_memory(&forecast, opened);
        text += &match measured {
            Some(seconds) => format!(
                "time    {:.2} s a step, {} for the run, without validation and saves\n",
                seconds,
                duration(seconds * total as f64)
            ),
            None => "time    not measured\n".to_owned(),
        };
        print(&text)?;
    }
    match checked.problems.as_slice() {
        [] => Ok(()),
        problems => {
            problems.iter().take(20).for_each(|problem| console.error(problem));
            if problems.len() > 20 {
                console.error(format_args!("... and {} more", problems.len() - 20));
            }
            Err(Failure::Check)
        }
    }
}

/// Refuses a run whose first step would not fit into memory.
///
/// # Errors
/// [`Failure::Input`] with the forecast and what would be less.
pub(super) fn check_memory(
    config: &TrainConfig,
    setup: &ModelSetup,
    opened: &Opened,
    console: &Console,
) -> Result<(), Failure> {
    let llm = &setup.model.llm;
    let bytes = if config.train.llm { 4 } else { opened.dtype.size() };
    let embedding = (llm.vocab_size * llm.hidden_size * bytes) as u64;
    fits_a_buffer(embedding, opened.largest_buffer(), opened.spec)?;
    let on_cpu = opened.spec.backend.is_cpu();
    let Some(free) = available_memory().filter(|_| on_cpu) else { return Ok(()) };
    let forecast = forecast(config, setup, &table(config, setup)?, opened.dtype, setup.model.max_length);
    let text = format!(
        "the run needs about {} of memory at its full length of {} tokens, {} are free",
        short_bytes(forecast.total()),
        setup.model.max_length,
        short_bytes(free)
    );
    // The longest rows may be shorter than the limit, so a narrow miss is worth a try.
    if forecast.total() > 2 * free {
        return Err(Failure::input(format_args!(
            "{text}; lower run.batch_size (and raise run.accumulation), set run.gradient_checkpointing = true, or lower \
             model.max_length; --dry-run lists what takes how much"
        )));
    }
    if forecast.total() > free {
        console.warn(format_args!("{text}; --dry-run lists what takes how much"));
    }
    Ok(())
}

/// Chat and evaluation hold a large embedding in pieces; training does not.
fn fits_a_buffer(embedding: u64, largest: Option<u64>, spec: DeviceSpec) -> Result<(), Failure> {
    match largest {
        Some(largest) if largest < embedding => Err(Failure::input(format_args!(
            "the decoder's embedding takes {} in one buffer, {spec} binds at most {}; chat and eval cut it in pieces, \
             training does not: use --device cuda or --device flex",
            short_bytes(embedding),
            short_bytes(largest)
        ))),
        _ => Ok(()),
    }
}

fn table(config: &TrainConfig, setup: &ModelSetup) -> Result<ParameterTable, Failure> {
    // Weights are lazy: nothing is allocated for the list.
    let model = setup.model.init(&crate::device::any()?.autodiff())?;
    Ok(ParameterTable::new(&model, config.train, config.optim.decay_rule))
}

fn forecast(
    config: &TrainConfig,
    setup: &ModelSetup,
    table: &ParameterTable,
    dtype: DType,
    length: usize,
) -> MemoryForecast {
    MemoryForecast::new(config, &setup.model, table, dtype, length.min(setup.model.max_length))
}

fn describe_samples(lengths: &Lengths, problems: usize, setup: &ModelSetup) -> String {
    let mut text = format!(
        "samples {} checked, {problems} with problems; {} with pictures, {} without anything to learn\n",
        lengths.samples, lengths.with_pictures, lengths.no_target
    );
    text += &format!(
        "tokens  {} shortest, {} median, {} at 95 %, {} longest; {} in all, {} of them supervised\n",
        lengths.shortest,
        lengths.median,
        lengths.p95,
        lengths.longest,
        short_count(lengths.tokens),
        short_count(lengths.supervised)
    );
    if lengths.cut > 0 {
        text += &format!(
            "        {} samples are cut at model.max_length = {}\n",
            lengths.cut, setup.model.max_length
        );
    }
    text
}

fn describe_parameters(table: &ParameterTable, each: bool) -> String {
    let mut text = String::from("learns\n");
    for component in Component::ALL {
        let (all, learn) = table.counts(component);
        if all > 0 {
            let state = if learn > 0 { "learns" } else { "frozen" };
            text += &format!("        {:<17} {:>8}  {state}\n", component.name(), short_count(all as u64));
        }
    }
    text += &format!(
        "        {} of {} values\n",
        short_count(table.trainable() as u64),
        short_count(table.total() as u64)
    );
    if each {
        for (_, info) in table.iter().filter(|(_, info)| info.trains) {
            let decay = if info.decays { "decays" } else { "" };
            text += &format!("        {:<80} {:?} {decay}\n", info.key, info.shape);
        }
    }
    text
}

fn describe_schedule(config: &TrainConfig, total: usize, dtype: DType) -> String {
    let options = trainer_options(config, total, dtype);
    let schedule = options.schedule;
    let mut text = format!(
        "steps   {total}, {} of them warm-up; {} samples a step; learning rate\n",
        schedule.warmup_steps(),
        config.run.dealing(1).micro_batches * config.run.batch_size
    );
    let last = total.saturating_sub(1);
    let mut points: Vec<usize> = (0..SCHEDULE_POINTS).map(|i| last * i / (SCHEDULE_POINTS - 1)).collect();
    points.dedup();
    for step in points {
        let bar = "#".repeat((40.0 * schedule.factor(step)).round() as usize);
        text += &format!("        {:>8}  {:<9.2e} {bar}\n", step + 1, schedule.lr(step, options.lr));
    }
    text
}

fn describe_memory(forecast: &MemoryForecast, opened: &Opened) -> String {
    let mut text = format!("memory  {} on {} in all\n", short_bytes(forecast.total()), opened.spec);
    for (name, bytes) in forecast.parts().into_iter().filter(|(_, bytes)| *bytes > 0) {
        text += &format!("        {name:<22} {:>12}\n", short_bytes(bytes));
    }
    text
}

fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{seconds:.0} s"),
        (0, minutes) => format!("{minutes} min {} s", whole % 60),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Backend;

    #[test]
    fn an_embedding_above_the_largest_buffer_is_refused() {
        let spec = DeviceSpec { backend: Backend::Wgpu, index: 0 };
        assert!(fits_a_buffer(1 << 30, None, spec).is_ok());
        assert!(fits_a_buffer(1 << 27, Some(1 << 27), spec).is_ok());
        let error = fits_a_buffer(1 << 28, Some(1 << 27), spec).unwrap_err();
        let text = format!("{:?}", error);
        assert!(text.contains("wgpu binds at most") && text.contains("--device cuda"), "{text}");
    }
}
