//! `chat`: one answer, or a conversation.

mod args;
mod conversation;
mod input;
mod line;
mod session;

use std::path::Path;

use tg_llava_core::assistant::{Assistant, AssistantOptions};
use tg_llava_core::config::read_model_config;
use tg_llava_core::generate::{BeamOptions, GenerateOptions, Sampling};
use tg_llava_core::weights::{is_unused_key, open_sources};

pub use self::args::ChatArgs;
use self::session::{ChatSession, FinishReason};
use crate::args::GenerationArgs;
use crate::checkpoint;
use crate::console::Console;
use crate::device::{self, DefaultDtype, Opened};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::{Progress, short_count};

/// Runs the command.
///
/// # Errors
/// Where the checkpoint, a picture or the question cannot be used, or the device fails.
pub fn run(args: &ChatArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    // What is quickly checked comes before what takes long.
    if args.prompt.as_deref().is_some_and(|prompt| prompt.trim().is_empty()) && args.images.is_empty() {
        return Err(Failure::input("the question is empty; type a question or show a picture with --image"));
    }
    let dir = checkpoint::find(args.model.as_deref())?;
    if let Some(base) = &args.base {
        checkpoint::check(base)?;
    }
    let decode = args.pictures.decode_options();
    let mut pictures = Vec::new();
    for source in &args.images {
        let _spinner = Progress::spinner(&console, &format!("reading {source}"));
        pictures.push((source.clone(), source.read(&decode)?));
    }
    let opened = device::open(&args.compute, DefaultDtype::Fast, &console)?;
    let interrupt = Interrupt::install();
    let assistant = load(&dir, &opened, args, &console)?;
    let options = generate_options(&assistant, &args.generation);
    let mut session = ChatSession::new(assistant, options, decode, console);
    for (source, picture) in &pictures {
        session.show(source, picture)?;
    }
    match &args.prompt {
        Some(prompt) => {
            let answer = session.ask(prompt, &interrupt)?;
            match answer.finish_reason {
                FinishReason::Interrupted => Err(Failure::Interrupted),
                _ => Ok(()),
            }
        }
        None => conversation::run(&mut session, &dir, &interrupt),
    }
}

fn load(dir: &Path, opened: &Opened, args: &ChatArgs, console: &Console) -> Result<Assistant, Failure> {
    let options = AssistantOptions {
        dtype: opened.dtype,
        base: args.base.clone(),
        template: args.template.clone(),
        guide_turn: args.guide.guide_turn.map(Into::into),
        guide_padding: args.guide.guide_padding.map(Into::into),
        detail_source: args.guide.detail_source.map(Into::into),
        largest_buffer: opened.largest_buffer(),
    };
    let start = std::time::Instant::now();
    let bar = Progress::bar(console, "loading weights", || total_values(dir, args.base.as_deref()));
    let mut values = 0;
    let assistant = Assistant::load(dir, &opened.device, &options, &mut |count| {
        values += count;
        bar.advance(count);
    })?;
    drop(bar);
    let not_finite = &assistant.report.not_finite;
    if !not_finite.is_empty() {
        console.warn(format_args!(
            "{} tensor(s) hold NaN or infinite values, so answers are likely to be nonsense: {}",
            not_finite.len(),
            first_few(not_finite)
        ));
    }
    console.detail(format_args!(
        "{}: {} parameters loaded in {:.1} s, template {}",
        dir.display(),
        short_count(values as u64),
        start.elapsed().as_secs_f64(),
        assistant.template.name
    ));
    Ok(assistant)
}

/// How many values a checkpoint's tensors hold; `None` where that cannot be said, which loading will explain.
fn total_values(dir: &Path, base: Option<&Path>) -> Option<u64> {
    let source = open_sources(dir, &read_model_config(dir).ok()?, base).ok()?;
    let used = source.iter().filter(|(key, _)| !is_unused_key(key));
    Some(used.map(|(_, tensor)| tensor.num_elements() as u64).sum())
}

/// How many names are printed before the rest is counted.
const SHOWN: usize = 8;

fn first_few(names: &[String]) -> String {
    let mut out = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        out += &format!(" and {} more", names.len() - SHOWN);
    }
    out
}

/// The checkpoint's own settings with what was asked for.
fn generate_options(assistant: &Assistant, args: &GenerationArgs) -> GenerateOptions {
    let mut options = assistant.generate_options();
    let defaults = &assistant.defaults;
    options.max_new_tokens = args.max_new_tokens;
    options.repetition_penalty = args.repetition_penalty.unwrap_or(options.repetition_penalty);
    let asked = args.temperature.is_some() || args.top_k.is_some() || args.top_p.is_some();
    let random = asked || options.sampling != Sampling::Greedy;
    let temperature = args.temperature.or(defaults.temperature).unwrap_or(1.0);
    if args.num_beams > 1 {
        options.sampling = Sampling::Greedy;
        options.beams =
            Some(BeamOptions { length_penalty: args.length_penalty, ..BeamOptions::new(args.num_beams) });
        return options;
    }
    options.sampling = if random && temperature > 0.0 {
        Sampling::Random {
            temperature,
            top_k: args.top_k.or(defaults.top_k).unwrap_or(50),
            top_p: args.top_p.or(defaults.top_p).unwrap_or(1.0),
            seed: args.seed,
        }
    } else {
        Sampling::Greedy
    };
    options
}
