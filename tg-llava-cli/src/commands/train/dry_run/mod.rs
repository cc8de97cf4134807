//! `--dry-run`: everything that can be known before the first step.

mod memory;
mod preset;
mod samples;
mod sizes;
mod speed;

use tg_llava_core::config::ModelConfig;
use tg_llava_train::config::{Component, TrainConfig};
use tg_llava_train::engine::ParameterTable;
use tg_llava_train::parallel::World;
use tg_llava_train::run::{total_steps, trainer_options};
use tg_llava_train::start::{Attention, MemoryForecast, ModelSetup, TrainingData, Workload};

pub(super) use self::memory::check as check_memory;
pub(super) use self::preset::{run as run_preset, usual_run, without_files};
use self::samples::{Checked, Lengths, preview};
use self::sizes::Sizes;
use crate::console::{Console, print, print_json};
use crate::device::{Backend, Opened};
use crate::failure::Failure;
use crate::progress::short_count;

/// Points at which the schedule is shown.
const SCHEDULE_POINTS: usize = 9;

/// A run before its first step.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    /// The run.
    pub config: &'a TrainConfig,
    /// What it trains.
    pub setup: &'a ModelSetup,
    /// Where it computes.
    pub opened: &'a Opened,
    /// With whom.
    pub world: World,
}

impl<'a> Plan<'a> {
    /// The run with rows of `length` tokens, as far as the model reads them.
    fn workload(&self, table: &'a ParameterTable, length: usize) -> Workload<'a> {
        Workload {
            config: self.config,
            model: &self.setup.model,
            table,
            dtype: self.opened.dtype,
            world: self.world,
            attention: Attention::WrittenOut,
            batch_size: self.config.run.batch_size,
            length: length.min(self.setup.model.max_length),
        }
    }

    /// Whether there is more to say than what a single processor needs.
    fn is_for_cards(&self) -> bool {
        self.world.size() > 1 || self.opened.spec.backend == Backend::Cuda
    }
}

/// Checks samples and says what the run would be.
pub(super) fn run(plan: &Plan<'_>, data: &TrainingData, console: &Console) -> Result<(), Failure> {
    let Plan { config, setup, opened, world } = *plan;
    let checked = samples::check(setup, data, console);
    let table = table(config, &setup.model)?;
    let workload = plan.workload(&table, checked.lengths.longest);
    let memory = MemoryForecast::new(&workload);
    let sizes = plan.is_for_cards().then(|| Sizes::new(&workload));
    let measured = match checked.problems.is_empty() && world.size() == 1 {
        true => speed::measure(plan, data, console)?,
        false => None,
    };
    let total = total_steps(config, data.len(), world.size());
    if console.json {
        let value = serde_json::json!({
            "samples": data.len(),
            "problems": checked.problems,
            "lengths": checked.lengths,
            "parameters": parameters(&table),
            "steps": total,
            "memory": memory,
            "memory_total": memory.total(),
            "forecast": sizes,
            "seconds_per_step": measured,
            "seconds": measured.map(|seconds| seconds * total as f64),
        });
        print_json(&value, true)?;
    } else {
        let mut text = preview(setup, data);
        text += &describe_samples(&checked.lengths, checked.problems.len(), setup);
        text += &describe_parameters(&table, console.verbose);
        text += &describe_schedule(plan, total);
        text += &match &sizes {
            Some(sizes) => sizes.text(),
            None => {
                let all = memory::bytes(memory.total());
                let pictures = memory::line("pictures, about", memory.pictures);
                format!("memory  {all} on {} in all\n{}{pictures}", opened.spec, memory::describe(&memory))
            }
        };
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
    report(&checked, console)
}

fn report(checked: &Checked, console: &Console) -> Result<(), Failure> {
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

fn table(config: &TrainConfig, model: &ModelConfig) -> Result<ParameterTable, Failure> {
    // Weights are lazy: nothing is allocated for the list.
    let mut model = model.init(&crate::device::any()?.autodiff())?;
    if let Some(lora) = &config.lora {
        model.llm.add_adapter(&lora.adapter(None))?;
    }
    Ok(ParameterTable::new(&model, config.train, config.optim.decay_rule))
}

fn parameters(table: &ParameterTable) -> serde_json::Value {
    serde_json::json!({ "trainable": table.trainable(), "total": table.total() })
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
            let state = match learn {
                0 => "frozen".to_owned(),
                _ if learn == all => "learns".to_owned(),
                _ => format!("frozen, but for an adapter of {}", short_count(learn as u64)),
            };
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

fn describe_schedule(plan: &Plan<'_>, total: usize) -> String {
    let options = trainer_options(plan.config, total, plan.opened.dtype);
    let schedule = options.schedule;
    let mut text = format!(
        "steps   {total}, {} of them warm-up; {} samples a step; learning rate\n",
        schedule.warmup_steps(),
        plan.config.run.dealing(plan.world.size()).micro_batches * plan.config.run.batch_size
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

fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{seconds:.0} s"),
        (0, minutes) => format!("{minutes} min {} s", whole % 60),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
