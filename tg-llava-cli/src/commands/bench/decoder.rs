//! The decoder over a prompt, and token by token, for one answer and for several.

use std::time::Instant;

use serde_json::{Map, Value};
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
    let times = repeat(&bench.opened.device, bench.args.reps, || next(&mut start(bench, &model, [1, 1])?))?;
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
    let model = bench.model(Part::Decoder)?;
    let times = step_times(bench, &model, 1)?;
    bench.note("decode", times.milliseconds());
    let mut report = bench.machine.compare(step_work(bench, &model, 1), &times);
    report["tokens"] = bench.args.new.into();
    report["tokens_per_s"] = round(1.0 / times.median()).into();
    Ok(report)
}

/// Times answers that grow together, and compares with as many one after the other.
///
/// # Errors
/// As the model, and where the device fails.
pub(super) fn batch(bench: &Bench) -> Result<Value, Failure> {
    let model = bench.model(Part::Decoder)?;
    let mut reports = Map::new();
    for &rows in &bench.args.rows {
        // In turn, so that what else the machine does falls on both.
        let alone = step_times(bench, &model, 1)?;
        let times = step_times(bench, &model, rows)?;
        bench.note(&format!("{rows} rows"), times.milliseconds());
        let mut report = bench.machine.compare(step_work(bench, &model, rows), &times);
        report["tokens_per_s"] = round(rows as f64 / times.median()).into();
        report["share_of_one_by_one"] = round(times.median() / (rows as f64 * alone.median())).into();
        reports.insert(rows.to_string(), report);
    }
    Ok(Value::Object(reports))
}

/// Seconds of one more token for each of `rows` answers to one prompt, whose keys and values each has for itself.
fn step_times(bench: &Bench, model: &TgLlava, rows: usize) -> Result<Times, Failure> {
    let (args, device) = (bench.args, &bench.opened.device);
    let mut seconds = Vec::with_capacity(args.reps);
    for rep in 0..=args.reps {
        let mut engine = start(bench, model, [rows, args.new + 2])?;
        // The first answers' tokens, and memory of their own.
        next(&mut engine)?;
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
    Ok(Times::new(seconds))
}

/// What a step of [`step_times`] cannot do without.
fn step_work(bench: &Bench, model: &TgLlava, rows: usize) -> Work {
    let (llm, width) = (&model.config().llm, bench.opened.dtype.size());
    let work = |past: usize| Work::decoder(llm, 1, past, 1, width).quantised(&model.llm, width);
    let row = work(bench.args.prompt + bench.args.new / 2);
    let cache = row.bytes - work(0).bytes;
    let more = Work { flops: 0.0, bytes: cache * (rows - 1) as f64 };
    row.rows(rows) + more
}

/// A prompt of any tokens that waits for so many answers of `new` tokens.
fn start<'m>(bench: &Bench, model: &'m TgLlava, [rows, new]: [usize; 2]) -> Result<Engine<'m>, Failure> {
    let options = GenerateOptions { max_new_tokens: new, num_answers: rows, ..GenerateOptions::default() };
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
