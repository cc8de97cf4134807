//! `eval`: how many answers of a LLaVA file a checkpoint gets right, or what it scores on a public benchmark.

mod benchmark;
mod predictions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;
use tg_llava_core::assistant::{Assistant, AssistantOptions};
use tg_llava_core::generate::BeamOptions;
use tg_llava_core::weights::QuantisedTensor;
use tg_llava_train::data::{EncodeOptions, LlavaDataset, Loader, OnBadSample, SampleEncoder};
use tg_llava_train::run::{self, EvaluateOptions, Evaluation, Prediction, evaluate};

use self::benchmark::BenchmarkArgs;
use self::predictions::PredictionFile;
use crate::args::{OutputArgs, at_least_one};
use crate::checkpoint::{self, Folders};
use crate::console::{Console, print, print_json};
use crate::device::{self, ComputeArgs, DefaultDtype, Opened};
use crate::failure::Failure;
use crate::load;
use crate::progress::Progress;
use crate::quantised::{self, QuantizeArgs};

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Checkpoint: a folder, or a model on Hugging Face, OWNER/NAME(@REVISION) [default: the one in weights/]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// The decoder, named like --model, or a GGUF file: where --model holds none (stage-1 files, an adapter), or in the place of its own
    #[arg(long, value_name = "MODEL|FILE")]
    pub base: Option<PathBuf>,
    /// LLaVA file (JSON or JSONL), whose last answer of each sample is asked for; or a benchmark's questions
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Folder that the samples' pictures are named from
    #[arg(long, value_name = "DIR")]
    pub image_folder: Option<PathBuf>,
    /// Take pictures from elsewhere too: absolute names, `..`, links
    #[arg(long)]
    pub allow_outside: bool,
    /// Samples at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch_size: usize,
    /// Longest answer, in tokens [default: 64; for a benchmark as its harness has it]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_new_tokens: Option<usize>,
    /// Search for the most probable answer as a whole, following N at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub num_beams: usize,
    /// Look at the first N samples alone
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Write each sample's answer to a file as it comes, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Replace the file of --predictions, or the answers in --output, where there are any
    #[arg(long)]
    pub force: bool,
    /// A public benchmark instead of a LLaVA file.
    #[command(flatten)]
    pub benchmark: BenchmarkArgs,
    /// Device and number format.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Formats of the decoder's matrices.
    #[command(flatten)]
    pub quantize: QuantizeArgs,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl EvalArgs {
    /// The search that is asked for.
    fn beams(&self) -> Option<BeamOptions> {
        (self.num_beams > 1).then(|| BeamOptions::new(self.num_beams))
    }
}

/// Longest answer to a question of a LLaVA file, in tokens.
const SHORT_ANSWER: usize = 64;

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where checkpoint or data cannot be used, [`Failure::Check`] where a sample could not be checked,
/// [`Failure::Interrupted`] where Ctrl-C ends a benchmark, whose answers are kept.
pub fn run(args: &EvalArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let folders = checkpoint::find(args.model.as_deref(), args.base.as_deref(), &console)?;
    if args.benchmark.is_meant(&args.data) {
        return benchmark::run(args, &folders, &console);
    }
    let open = |path: &PathBuf| PredictionFile::open(path, args.force);
    let mut predictions = args.predictions.as_ref().map(open).transpose()?;
    let (assistant, _) = load(args, &folders, &console)?;
    let loader = loader(args, &assistant)?;
    let mut indices: Vec<usize> = (0..loader.dataset().len()).collect();
    indices.truncate(args.samples.unwrap_or(indices.len()));
    let settings = EvaluateOptions {
        batch_size: args.batch_size,
        loss: true,
        max_new_tokens: Some(args.max_new_tokens.unwrap_or(SHORT_ANSWER)),
        beams: args.beams(),
    };
    let total = indices.len() as u64;
    let bar = Progress::bar(&console, "answering", || Some(total));
    let start = Instant::now();
    let mut unwritten = Ok(());
    let result = evaluate(&assistant.model, &loader, &indices, &settings, &mut |progress| {
        match progress {
            run::Progress::Answered(prediction) => {
                if let Some(file) = predictions.as_mut().filter(|_| unwritten.is_ok()) {
                    unwritten = file.write(prediction);
                }
            }
            run::Progress::Done(count) => bar.advance(count),
            run::Progress::Failed(_) => {}
        }
        unwritten.is_ok()
    });
    drop(bar);
    let result = result.map_err(|e| Failure::Input(e.into()))?;
    unwritten?;
    // Samples that are no samples at all: the data set leaves them out.
    let rejected = loader.dataset().rejected().iter().map(ToString::to_string);
    let failures: Vec<String> =
        rejected.chain(result.failures.iter().map(|failure| failure.message.clone())).collect();
    let weights = &assistant.report.quantised;
    report(&result, &failures, weights, start.elapsed().as_secs_f64(), &console)?;
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Failure::Check),
    }
}

/// The checkpoint, and what it computes on.
fn load(args: &EvalArgs, folders: &Folders, console: &Console) -> Result<(Assistant, Opened), Failure> {
    let opened = device::open(&args.compute, DefaultDtype::Fast, console)?;
    let options = AssistantOptions {
        base: folders.base.clone(),
        quantization: Some(args.quantize.quantization()),
        ..AssistantOptions::default()
    };
    Ok((load::assistant(&folders.model, &opened, &options, console)?, opened))
}

/// How samples and pictures are read for the model.
fn encoder(args: &EvalArgs, assistant: &Assistant) -> Result<SampleEncoder, Failure> {
    let config = assistant.model.config();
    let folder = args.image_folder.clone().unwrap_or_default();
    let mut options = EncodeOptions::new(&assistant.template, folder, config.max_length);
    let images = assistant.processor.clone().ok_or_else(|| {
        Failure::input("this checkpoint is a plain decoder; eval needs one that sees pictures")
    })?;
    if let Some(mm) = &config.multimodal {
        options = options.of_model(mm);
    }
    options.allow_outside = args.allow_outside;
    Ok(SampleEncoder {
        tokenizer: assistant.tokenizer.clone(),
        guide: assistant.guide_tokenizer.clone(),
        images,
        options,
    })
}

fn loader(args: &EvalArgs, assistant: &Assistant) -> Result<Loader, Failure> {
    let encoder = encoder(args, assistant)?;
    let input = |e: tg_llava_train::data::DataError| Failure::Input(e.into());
    let dataset = LlavaDataset::open(&args.data, OnBadSample::Skip).map_err(input)?;
    Loader::new(dataset, encoder, OnBadSample::Skip).map_err(input)
}

/// How many failures are printed before the rest is counted.
const SHOWN: usize = 20;

fn report(
    result: &Evaluation,
    failures: &[String],
    weights: &[QuantisedTensor],
    seconds: f64,
    console: &Console,
) -> Result<(), Failure> {
    for failure in failures.iter().take(SHOWN) {
        console.error(failure);
    }
    if failures.len() > SHOWN {
        console.error(format_args!("and {} samples more; --json lists all", failures.len() - SHOWN));
    }
    if result.loss.is_some_and(|loss| !loss.is_finite()) && result.samples > 0 {
        console.warn(
            "the loss is no finite number; are the weights damaged, or too large for this number format?",
        );
    }
    let correct = result.correct.unwrap_or(0);
    let by_answer = by_answer(&result.predictions);
    if console.json {
        let answers: BTreeMap<&str, serde_json::Value> = by_answer
            .iter()
            .map(|(answer, (right, all))| (*answer, json!({ "correct": right, "samples": all })))
            .collect();
        let mut value = json!({
            "samples": result.samples,
            "correct": correct,
            "exact_match": result.exact_match(),
            "loss": result.loss,
            "seconds": seconds,
            "by_answer": answers,
            "failures": failures,
        });
        if !weights.is_empty() {
            value["quantised"] = quantised::to_json(weights);
        }
        return print_json(&value, true);
    }
    let mut text = String::new();
    // A table of every distinct answer helps where answers are few, as in classification-like sets.
    if by_answer.len() <= 40 {
        for (answer, (right, all)) in &by_answer {
            text += &format!("  {answer:<16} {right:>6} of {all:>6}  {:>6.2} %\n", percent(*right, *all));
        }
    }
    text += &format!(
        "{correct} of {} answers right: {:.2} %; loss {:.4}; {seconds:.0} s\n",
        result.samples,
        percent(correct, result.samples),
        result.loss.unwrap_or(f64::NAN)
    );
    if !failures.is_empty() {
        text += &format!("{} sample(s) could not be checked\n", failures.len());
    }
    print(&text)
}

/// Right answers and all samples, by the expected answer.
fn by_answer(predictions: &[Prediction]) -> BTreeMap<&str, (usize, usize)> {
    let mut counts = BTreeMap::new();
    for prediction in predictions {
        let entry: &mut (usize, usize) = counts.entry(prediction.expected.trim()).or_default();
        entry.0 += usize::from(prediction.answer.trim() == prediction.expected.trim());
        entry.1 += 1;
    }
    counts
}

fn percent(part: usize, all: usize) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}
