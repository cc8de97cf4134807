//! `chat`: one answer, or a conversation.

mod args;
mod conversation;
mod input;
mod line;
mod session;

use tg_llava_core::assistant::Assistant;
use tg_llava_core::generate::{BeamOptions, GenerateOptions, Sampling};

pub use self::args::ChatArgs;
pub(crate) use self::args::template_name;
use self::session::{ChatSession, FinishReason};
use crate::args::GenerationArgs;
use crate::checkpoint;
use crate::console::Console;
use crate::device::{self, DefaultDtype};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::load;
use crate::memory;
use crate::progress::Progress;

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
    let folders = checkpoint::find(args.model.as_deref(), args.base.as_deref(), &console)?;
    let decode = args.pictures.decode_options();
    let mut pictures = Vec::new();
    for source in &args.images {
        let _spinner = Progress::spinner(&console, &format!("reading {source}"));
        pictures.push((source.clone(), source.read(&decode)?));
    }
    let opened = device::open(&args.compute, DefaultDtype::Fast, &console)?;
    let interrupt = Interrupt::install();
    let mut options = args.guide.assistant_options(folders.base.as_deref(), args.template.as_deref());
    options.quantization = Some(args.quantize.quantization());
    options.map_file = (!args.no_mmap).then_some(memory::map_file);
    let assistant = load::assistant(&folders.model, &opened, &options, &console)?;
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
        None => conversation::run(&mut session, &folders.model, &interrupt),
    }
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
