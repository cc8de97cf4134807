//! `convert`: a checkpoint in another number format, or with its decoder in fewer bits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde_json::json;
use tg_llava_core::burn::tensor::DType;
use tg_llava_core::quant::Scheme;
use tg_llava_core::weights::{
    Converted, Encoding, ExistingModel, MergeOptions, SaveOptions, convert_checkpoint,
};

use crate::args::OutputArgs;
use crate::checkpoint;
use crate::console::{Console, print_json};
use crate::device::{self, Dtype};
use crate::failure::Failure;
use crate::load::first_few;
use crate::progress::{Progress, short_bytes};

/// Arguments of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The checkpoint: a folder, or OWNER/NAME(@REVISION) on Hugging Face; an adapter is merged
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,
    /// The decoder, a folder or a GGUF file: where --model holds none, or in the place of its own
    #[arg(long, value_name = "MODEL|FILE")]
    pub base: Option<PathBuf>,
    /// Folder of the result
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace a model that --out holds
    #[arg(long)]
    pub force: bool,
    /// Format of all weights, or of the decoder's matrices
    #[arg(long, value_name = "FORMAT")]
    pub to: Format,
    /// Number format of what is not quantised [default: that of each tensor as it is]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<Dtype>,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// All weights as floats.
    Floats(Dtype),
    /// The decoder's matrices in fewer bits.
    Decoder(Encoding),
}

static FORMATS: LazyLock<Vec<Format>> = LazyLock::new(|| {
    let bitsandbytes = [Encoding::Nf4, Encoding::Int8];
    let encodings = bitsandbytes.into_iter().chain(Scheme::ALL.map(Encoding::Ggml));
    Dtype::value_variants()
        .iter()
        .copied()
        .map(Format::Floats)
        .chain(encodings.map(Format::Decoder))
        .collect()
});

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &FORMATS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Floats(dtype) => (
                DType::from(*dtype).name(),
                match dtype {
                    Dtype::F32 => "Floats of 32 bits",
                    Dtype::F16 => "Floats of 16 bits",
                    Dtype::Bf16 => "bfloat16",
                },
            ),
            Self::Decoder(encoding) => (
                encoding.name(),
                match encoding {
                    Encoding::Floats => return None,
                    Encoding::Nf4 => "4 bits of bitsandbytes, double quantisation",
                    Encoding::Int8 => "8 bits of bitsandbytes",
                    Encoding::Ggml(Scheme::Q8_0) => "8 bits in blocks of GGML",
                    Encoding::Ggml(Scheme::Q4KM) => "4 and 6 bits in blocks of GGML",
                    Encoding::Ggml(Scheme::Q4_0) => "4 bits in blocks of GGML",
                },
            ),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

impl Format {
    /// What the decoder's matrices become, and the number format that this alone decides.
    fn meaning(self) -> (Encoding, Option<DType>) {
        match self {
            Self::Floats(dtype) => (Encoding::Floats, Some(dtype.into())),
            Self::Decoder(encoding) => (encoding, None),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where the folders do not fit together or the result cannot be written.
pub fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let folders = checkpoint::find(Some(&args.model), args.base.as_deref(), &console)?;
    let (encoding, dtype) = args.to.meaning();
    if dtype.is_some() && args.dtype.is_some() {
        return Err(Failure::input(
            "--to names a number format of all weights; --dtype is for what --to does not quantise",
        ));
    }
    let options = MergeOptions {
        base: folders.base.as_deref(),
        dtype: dtype.or(args.dtype.map(DType::from)),
        base_through: Encoding::Floats,
        device: &device::any()?,
        max_shard_bytes: SaveOptions::default().max_shard_bytes,
        existing: if args.force { ExistingModel::Replace } else { ExistingModel::Refuse },
    };
    let spinner = Progress::spinner(&console, "converting");
    let converted = convert_checkpoint(&folders.model, &args.out, &options, encoding)?;
    drop(spinner);
    report(args, &converted, &console)
}

fn report(args: &ConvertArgs, converted: &Converted, console: &Console) -> Result<(), Failure> {
    let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in &converted.quantised {
        *formats.entry(tensor.format).or_default() += 1;
    }
    let other = converted.quantised.iter().filter_map(|tensor| Some((tensor, tensor.other()?)));
    let other: Vec<String> =
        other.map(|(tensor, asked)| format!("{} ({}, not {asked})", tensor.key, tensor.format)).collect();
    tell_not_finite(converted, console);
    if console.json {
        return print_json(
            &json!({
                "folder": args.out,
                "bytes": converted.bytes,
                "merged": converted.merged,
                "quantised": formats,
                "other_format": other,
                "not_finite": converted.not_finite,
            }),
            true,
        );
    }
    if !other.is_empty() {
        console.warn(format_args!(
            "{} matrices got another format than {:?} asks for, since their rows are no whole blocks: {}",
            other.len(),
            args.to.meaning().0.name(),
            first_few(&other)
        ));
    }
    let formats: Vec<String> = formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
    let formats =
        if formats.is_empty() { String::new() } else { format!(", matrices: {}", formats.join(", ")) };
    let merged = match converted.merged {
        0 => String::new(),
        count => format!(", an adapter merged into {count} matrices"),
    };
    console.note(format_args!("{}: {}{formats}{merged}", args.out.display(), short_bytes(converted.bytes)));
    Ok(())
}

/// Warns of values that were written and are no numbers.
pub(super) fn tell_not_finite(converted: &Converted, console: &Console) {
    let keys = &converted.not_finite;
    if !keys.is_empty() {
        console.warn(format_args!(
            "{} tensors hold NaN or infinite values, or some that are too large for the number format: {}",
            keys.len(),
            first_few(keys)
        ));
    }
}
