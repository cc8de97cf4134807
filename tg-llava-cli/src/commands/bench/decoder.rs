//! The decoder over a prompt, and token by token.

use std::time::Instant;

use burn::tensor::{Distribution, Tensor};
use serde_json::Value;
use tg_llava_core::generate::{Decoding, GenerateOptions};
use tg_llava_core::model::TgLlava;
use tg_llava_core::multimodal::{SplicePlan, TokenSource};

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
    let prompt = Prompt::new(bench, &model);
    let times = repeat(&bench.opened.device, bench.args.reps, || {
        drop(prompt.start(&model, 1)?.logits());
        Ok(())
    })?;
    bench.note("prefill", times.milliseconds());
    let llm = &model.config().llm;
    let work = Work::decoder(llm, bench.args.prompt, 0, 1, bench.opened.dtype.size());
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
    let prompt = Prompt::new(bench, &model);
    let mut seconds = Vec::with_capacity(args.reps);
    for rep in 0..=args.reps {
        let mut decoding = prompt.start(&model, args.new + 1)?;
        next(&mut decoding)?;
        wait(device)?;
        let start = Instant::now();
        for _ in 0..args.new {
            next(&mut decoding)?;
        }
        if rep > 0 {
            seconds.push(start.elapsed().as_secs_f64() / args.new as f64);
        }
    }
    let times = Times::new(seconds);
    bench.note("decode", times.milliseconds());
    let past = args.prompt + args.new / 2;
    let work = Work::decoder(&model.config().llm, 1, past, 1, bench.opened.dtype.size());
    let mut report = bench.machine.compare(work, &times);
    report["tokens"] = args.new.into();
    report["tokens_per_s"] = round(1.0 / times.median()).into();
    Ok(report)
}

fn next(decoding: &mut Decoding) -> Result<(), Failure> {
    decoding.step().map(drop).map_err(|error| Failure::Run(error.into()))
}

/// A random prompt.
struct Prompt {
    plan: SplicePlan,
    embeds: Tensor<3>,
}

impl Prompt {
    fn new(bench: &Bench, model: &TgLlava) -> Self {
        let (len, width) = (bench.args.prompt, model.config().llm.hidden_size);
        let plan = SplicePlan {
            sources: vec![vec![TokenSource::Padding; len]],
            labels: vec![Vec::new()],
            positions: vec![(0..len).collect()],
            mask: vec![vec![true; len]],
            truncated: vec![0],
        };
        let noise = Distribution::Normal(0.0, 1.0);
        let embeds = Tensor::random([1, len, width], noise, (&bench.opened.device, bench.opened.dtype));
        Self { plan, embeds }
    }

    /// Reads the prompt, with room for `new` tokens.
    fn start<'m>(&self, model: &'m TgLlava, new: usize) -> Result<Decoding<'m>, Failure> {
        let options = GenerateOptions { max_new_tokens: new, ..GenerateOptions::default() };
        Decoding::start(model, &self.plan, self.embeds.clone(), options)
            .map_err(|error| Failure::Input(error.into()))
    }
}
