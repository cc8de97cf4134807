//! A training micro-step of the decoder, and how long it would wait for pictures.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use serde_json::{Value, json};
use tg_llava_core::config::MultimodalConfig;
use tg_llava_core::llm::TokenBatch;
use tg_llava_core::model::TgLlava;
use tg_llava_core::nn::LossTargets;
use tg_llava_core::pass::{Pass, Site};
use tg_llava_core::preprocess::{ImageProcessor, PreparedImage, RgbImage};
use tg_llava_train::engine::{Activations, Tape, TrainedParts, head_loss, recording, scalar};
use tg_llava_train::optim::ParameterGradients;

use super::model::{Part, config};
use super::timing::{repeat, round};
use super::work::Work;
use super::{Bench, BenchArgs};
use crate::failure::Failure;

/// Rows of logits that are alive at a time, as the trainer has it by default.
const LOSS_CHUNK: usize = 512;

/// Size of the pictures that the data side prepares: those of LLaVA's data are about so large.
const PICTURE: [u32; 2] = [640, 480];

/// Times forwards and backwards of both stages, without the optimizer.
///
/// # Errors
/// As the model, and where the device fails.
pub(super) fn measure(bench: &Bench) -> Result<Value, Failure> {
    let stages: &[u8] = if bench.args.stage.is_empty() { &[1, 2] } else { &bench.args.stage };
    let mut report = json!({});
    for &stage in stages {
        report[format!("stage_{stage}")] = measure_stage(bench, stage)?;
    }
    Ok(report)
}

fn measure_stage(bench: &Bench, stage: u8) -> Result<Value, Failure> {
    let args = bench.args;
    let learns = stage == 2;
    let device = bench.opened.device.clone().autodiff();
    let parts = if learns { TrainedParts::FINETUNE } else { TrainedParts::PRETRAIN };
    let model = parts.freeze(recording(bench.model(Part::TrainedDecoder)?));
    let step = Step::new(args, &model, &device)?;
    let times = repeat(&device, args.reps, || step.run(&model, parts))?;
    bench.note(&format!("train, stage {stage}"), times.milliseconds());

    let work = Work::decoder(&model.config().llm, args.seq, 0, args.seq, bench.opened.dtype.size());
    let recompute = !args.keep_activations;
    let mut report = bench.machine.compare(work.rows(args.batch).trained(learns, recompute), &times);
    report["batch"] = args.batch.into();
    report["seq"] = args.seq.into();
    report["recompute"] = recompute.into();
    report["tokens_per_s"] = round((args.batch * args.seq) as f64 / times.median()).into();
    report["model_flops_utilisation"] = {
        let needed = work.rows(args.batch).trained(learns, false);
        round(needed.flops / bench.machine.flops / times.median()).into()
    };
    report["data_wait_share"] = round(data_wait(bench, &step, &model, parts)?).into();
    Ok(report)
}

/// One micro-batch: every token is real and supervised.
struct Step {
    embeds: Tensor<3>,
    tokens: TokenBatch,
    targets: LossTargets,
    activations: Activations,
}

impl Step {
    fn new(args: &BenchArgs, model: &TgLlava, device: &Device) -> Result<Self, Failure> {
        let llm = &model.config().llm;
        let shape = [args.batch, args.seq, llm.hidden_size];
        let labels: Vec<i64> = (0..args.seq).map(|i| (i * 7919 % llm.vocab_size) as i64).collect();
        let targets = LossTargets::new(&vec![labels; args.batch], llm.vocab_size)
            .map_err(|error| Failure::Input(tg_llava_core::Error::from(error).into()))?;
        Ok(Self {
            embeds: Tensor::random(shape, Distribution::Normal(0.0, 1.0), (device, model.llm.dtype())),
            tokens: TokenBatch {
                positions: vec![(0..args.seq).collect(); args.batch],
                mask: vec![vec![true; args.seq]; args.batch],
            },
            targets,
            activations: match args.keep_activations {
                true => Activations::Keep,
                false => Activations::Recompute,
            },
        })
    }

    /// Forwards and backwards, down to the decoder's inputs: in both stages something below the decoder learns.
    fn run(&self, model: &TgLlava, parts: TrainedParts) -> Result<(), Failure> {
        let mut gradients = ParameterGradients::new();
        let mut tape = Tape::new(model, parts, self.activations, 0);
        let inputs = tape.run_one(Site::Projector, &[], |_| self.embeds.clone().require_grad());
        let hidden = model.llm.walk(&mut tape, inputs, &self.tokens);
        let states = tape.value(&hidden);
        let head = head_loss(model, states, &self.targets, LOSS_CHUNK, 1.0, &mut gradients);
        tape.backward(hidden, head.gradient, &mut gradients).map_err(|error| Failure::Run(error.into()))?;
        scalar(head.loss).map(drop).map_err(|error| Failure::Run(error.into()))
    }
}

/// Share of the time that steps wait for pictures which one thread prepares beside them.
fn data_wait(bench: &Bench, step: &Step, model: &TgLlava, parts: TrainedParts) -> Result<f64, Failure> {
    let config = config(bench.args)?;
    let Some(mm) = config.multimodal else { return Ok(0.0) };
    let count = bench.args.reps.min(3);
    let batches = prepare_beside(mm, bench.args.batch, count + 1);
    let mut waited = Duration::ZERO;
    let mut start = Instant::now();
    for rep in 0..=count {
        let asked = Instant::now();
        batches.recv().ok();
        waited += asked.elapsed();
        if rep == 0 {
            // The first batch is on its way before a run begins.
            (start, waited) = (Instant::now(), Duration::ZERO);
        }
        step.run(model, parts)?;
    }
    Ok(waited.as_secs_f64() / start.elapsed().as_secs_f64())
}

/// A thread that prepares `count` batches of pictures, up to two ahead.
fn prepare_beside(mm: MultimodalConfig, batch: usize, count: usize) -> Receiver<Vec<PreparedImage>> {
    let (sender, receiver) = sync_channel(2);
    std::thread::spawn(move || {
        let processor = ImageProcessor::clip(mm.vision.image_size);
        let [width, height] = PICTURE;
        let picture = RgbImage::from_fn(width, height, |x, y| [x as u8, y as u8, (x ^ y) as u8].into());
        for _ in 0..count {
            let pictures = (0..batch).map(|_| processor.prepare(&picture, mm.aspect_ratio, mm.detail_source));
            if sender.send(pictures.collect()).is_err() {
                return;
            }
        }
    });
    receiver
}
