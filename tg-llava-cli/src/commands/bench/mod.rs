//! `bench`: how fast this build is on this machine, beside what the machine could do.

mod collectives;
mod decoder;
mod encode;
mod machine;
mod model;
mod timing;
mod train;
mod work;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use tg_llava_core::config::{LLM_PRESETS, TOWER_PRESETS};
use tg_llava_core::weights::{Encoding, Quantization};

use crate::args::{OutputArgs, at_least_one};
use crate::console::{Console, print_json};
use crate::device::{self, ComputeArgs, DefaultDtype, Opened};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::quantised::{self, QuantizeArgs};
use machine::Machine;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub struct BenchArgs {
    /// Sizes of the decoder
    #[arg(long, default_value = "smollm2-135m", value_parser = PossibleValuesParser::new(LLM_PRESETS))]
    pub preset: String,
    /// Sizes of the towers
    #[arg(long, default_value = "clip-l-336", value_parser = PossibleValuesParser::new(TOWER_PRESETS))]
    pub towers: String,
    /// What to measure, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PHASES")]
    pub phase: Vec<Phase>,
    /// Check, in --reps rounds, what the ranks that mpirun, torchrun or srun has started do together; measures nothing else.
    /// GPUs need NCCL_COMM_ID=HOST:PORT, a free port of rank 0's machine
    #[arg(long, conflicts_with = "phase")]
    pub collectives: bool,
    /// Tokens of the prompt, for prefill and decode
    #[arg(long, value_name = "N", default_value_t = 704, value_parser = at_least_one)]
    pub prompt: usize,
    /// Tokens that are generated, for decode
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub new: usize,
    /// Answers that grow together, for batch
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "8", value_parser = at_least_one)]
    pub rows: Vec<usize>,
    /// Rows of a training micro-step
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    pub batch: usize,
    /// Tokens of each row of a training micro-step
    #[arg(long, value_name = "N", default_value_t = 704, value_parser = at_least_one)]
    pub seq: usize,
    /// Training stages [default: 1,2]
    #[arg(long, value_delimiter = ',', value_name = "STAGES", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub stage: Vec<u8>,
    /// Keep all activations of a training micro-step instead of computing blocks again
    #[arg(long)]
    pub keep_activations: bool,
    /// Measurements of each phase, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one)]
    pub reps: usize,
    /// Device and number format.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Formats of the decoder's matrices, for prefill and decode.
    #[command(flatten)]
    pub quantize: QuantizeArgs,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

const BENCH_HELP: &str = "\
The model is random and of the published sizes; nothing is downloaded. What is printed is JSON; times are medians, in \
milliseconds. roofline_ms is the least time that the machine's measured matrix product and copy speeds allow, \
share_of_roofline how much of that is reached. RAYON_NUM_THREADS sets the number of threads on a CPU.";

/// A part of the program's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// The vision tower over a picture and its four crops
    Encode,
    /// The decoder over a prompt, up to the first token's scores
    Prefill,
    /// The decoder, token by token
    Decode,
    /// The same for several answers at a time, beside as many one after the other
    Batch,
    /// A training micro-step of the decoder, forwards and backwards
    Train,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Encode, Self::Prefill, Self::Decode, Self::Batch, Self::Train];

    fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Batch => "batch",
            Self::Train => "train",
        }
    }
}

/// What every phase needs.
struct Bench<'a> {
    args: &'a BenchArgs,
    quantization: Option<Quantization>,
    opened: &'a Opened,
    machine: Machine,
    console: &'a Console,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where the sizes do not fit together, [`Failure::Run`] where the device fails.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    if args.collectives {
        let found = collectives::measure(&args.compute, args.reps, &console)?;
        return found.map_or(Ok(()), |found| print_json(&found, true));
    }
    let opened = device::open(&args.compute, DefaultDtype::Fast, &console)?;
    let quantization = quantised::on_device(Some(args.quantize.quantization()), &opened)?;
    let spinner = Progress::spinner(&console, "measuring the machine");
    let machine = Machine::measure(&opened)?;
    drop(spinner);
    let bench = Bench { args, quantization, opened: &opened, machine, console: &console };
    let mut phases = Map::new();
    for phase in Phase::ALL {
        if !args.phase.is_empty() && !args.phase.contains(&phase) {
            continue;
        }
        let spinner = Progress::spinner(&console, phase.name());
        let found = match phase {
            Phase::Encode => encode::measure(&bench)?,
            Phase::Prefill => decoder::prefill(&bench)?,
            Phase::Decode => decoder::decode(&bench)?,
            Phase::Batch => decoder::batch(&bench)?,
            Phase::Train => train::measure(&bench)?,
        };
        drop(spinner);
        phases.insert(phase.name().into(), found);
    }
    print_json(&report(&bench, phases), true)
}

fn report(bench: &Bench, phases: Map<String, Value>) -> Value {
    let encoding = bench.quantization.map(|quantization| quantization.encoding);
    let encoding = encoding.filter(|encoding| *encoding != Encoding::Floats);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "preset": bench.args.preset,
        "towers": bench.args.towers,
        "device": bench.opened.spec.to_string(),
        "dtype": bench.opened.dtype.name(),
        "quantize": encoding.map(Encoding::name),
        "threads": machine::threads(),
        "machine": bench.machine.report(),
        "phases": phases,
    })
}

impl Bench<'_> {
    /// Tells the result of one measurement to who is waiting.
    fn note(&self, what: &str, milliseconds: f64) {
        self.console.note(format_args!("{what:<16} {milliseconds:>10.1} ms"));
    }
}
