//! The decoder over a prompt, and token by token.

use std::time::Instant;

use serde_json::Value;
use tg_llava_core::generate::{Engine, Event, GenerateOptions, Request};
use tg_llava_core::model::TgLlava;

use super::Bench;
use super::model::Part;
use super::timing::{Times, repeat, round, wait};
use super::work::Work;
use crate::failure::Failure;

/// Times a prompt up to the scores of the first token.
///
/// # Errors
/// As the model, and where the device fails.
pub(super) fn prefill(bench: &Bench) -> Result<Value, Failure> {
    let model = bench.model(Part::Decoder)?;
    let times = repeat(&bench.opened.device, bench.args.reps, || next(&mut start(bench, &model, 1)?))?;
    bench.note("prefill", times.milliseconds());
    let llm = &model.config().llm;
    let width = bench.opened.dtype.size();
    let work = Work::decoder(llm, bench.args.prompt, 0, 1, width).quantised(&model.llm, width);
    let mut report = bench.machine.compare(work, &times);
    report["tokens"] = bench.args.prompt.into();
    report["tokens_per_s"] = round(bench.args.prompt as f64 / times.median()).into();
    Ok(report)
}

/// Times the tokens behind the first one.
///
/// # Errors
/// As the model, and where the device fails.
pub(super) fn decode(bench: &Bench) -> Result<Value, Failure> {
    let (args, device) = (bench.args, &bench.opened.device);
    let model = bench.model(Part::Decoder)?;
    let mut seconds = Vec::with_capacity(args.reps);
    for rep in 0..=args.reps {
        let mut engine = start(bench, &model, args.new + 1)?;
        next(&mut engine)?;
        wait(device)?;
        let start = Instant::now();
        for _ in 0..args.new {
            next(&mut engine)?;
        }
        if rep > 0 {
            seconds.push(start.elapsed().as_secs_f64() / args.new as f64);
        }
    }
    let times = Times::new(seconds);
    bench.note("decode", times.milliseconds());
    let past = args.prompt + args.new / 2;
    let width = bench.opened.dtype.size();
    let work = Work::decoder(&model.config().llm, 1, past, 1, width).quantised(&model.llm, width);
    let mut report = bench.machine.compare(work, &times);
    report["tokens"] = args.new.into();
    report["tokens_per_s"] = round(1.0 / times.median()).into();
    Ok(report)
}

/// A prompt of any tokens that waits for its answer of `new` tokens.
fn start<'m>(bench: &Bench, model: &'m TgLlava, new: usize) -> Result<Engine<'m>, Failure> {
    let options = GenerateOptions { max_new_tokens: new, ..GenerateOptions::default() };
    let vocab = model.config().llm.vocab_size;
    let prompt = (0..bench.args.prompt).map(|place| (place * 7919 % vocab) as i64).collect();
    let mut engine = Engine::new(model, None);
    engine.admit(Request::text(prompt, options)).map_err(|error| Failure::Input(error.into()))?;
    Ok(engine)
}

fn next(engine: &mut Engine) -> Result<(), Failure> {
    let failed = |event| match event {
        Event::Failed { error, .. } => Some(Failure::Run(error.into())),
        Event::Token { .. } | Event::Finished { .. } => None,
    };
    engine.step().into_iter().find_map(failed).map_or(Ok(()), Err)
}
