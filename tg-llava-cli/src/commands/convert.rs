//! `convert`: a checkpoint in another number format, or with its decoder in fewer bits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;
use tg_llava_core::burn::tensor::DType;
use tg_llava_core::quant::Scheme;
use tg_llava_core::weights::{
    ConvertEvent, Converted, Earlier, Encoding, ExistingModel, MergeBase, MergeOptions, SaveOptions,
    convert_checkpoint, has_unfinished_save,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Floats of 32 bits
    F32,
    /// Floats of 16 bits
    F16,
    /// bfloat16
    Bf16,
    /// 4 bits of bitsandbytes, double quantisation
    Nf4,
    /// 8 bits of bitsandbytes
    Int8,
    /// 8 bits in blocks of GGML
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 and 6 bits in blocks of GGML
    #[value(name = "q4_k_m")]
    Q4KM,
    /// 4 bits in blocks of GGML
    #[value(name = "q4_0")]
    Q4_0,
}

impl Format {
    /// What the decoder's matrices become, and the number format that this alone decides.
    fn meaning(self) -> (Encoding, Option<DType>) {
        match self {
            Self::F32 => (Encoding::Floats, Some(DType::F32)),
            Self::F16 => (Encoding::Floats, Some(DType::F16)),
            Self::Bf16 => (Encoding::Floats, Some(DType::BF16)),
            Self::Nf4 => (Encoding::Nf4, None),
            Self::Int8 => (Encoding::Int8, None),
            Self::Q8_0 => (Encoding::Ggml(Scheme::Q8_0), None),
            Self::Q4KM => (Encoding::Ggml(Scheme::Q4KM), None),
            Self::Q4_0 => (Encoding::Ggml(Scheme::Q4_0), None),
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
        into: MergeBase::Full,
        device: &device::any()?,
        max_shard_bytes: SaveOptions::default().max_shard_bytes,
        existing: if args.force { ExistingModel::Replace } else { ExistingModel::Refuse },
    };
    let converted = watched(&console, "converting", &args.out, |told| {
        convert_checkpoint(&folders.model, &args.out, &options, encoding, told)
    })?;
    report(args, &converted, &console)
}

/// Does `work`, which writes a checkpoint into `out`, with a bar, and says what it tells.
pub(super) fn watched<T>(
    console: &Console,
    what: &str,
    out: &Path,
    work: impl FnOnce(&mut dyn FnMut(ConvertEvent)) -> tg_llava_core::Result<T>,
) -> Result<T, Failure> {
    let mut bar = Progress::spinner(console, what);
    let mut begun = false;
    let done = work(&mut |event| match event {
        ConvertEvent::Earlier(Earlier::Kept { bytes }) => {
            console.note(format_args!("{what} goes on: {} are there already", short_bytes(bytes)));
        }
        ConvertEvent::Earlier(Earlier::Discarded { reason }) => {
            console.note(format_args!(
                "{what} starts anew, what was begun in {} is deleted: {reason}",
                out.display()
            ));
        }
        ConvertEvent::Written { bytes, total } => {
            if !begun {
                (bar, begun) = (Progress::bytes(console, what, Some(total)), true);
            }
            bar.set(bytes);
        }
    });
    drop(bar);
    if done.is_err() && begun && has_unfinished_save(out) {
        console.note(format_args!(
            "what is written stays in {}: the same command goes on from there",
            out.display()
        ));
    }
    Ok(done?)
}

fn report(args: &ConvertArgs, converted: &Converted, console: &Console) -> Result<(), Failure> {
    let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in &converted.quantised {
        *formats.entry(tensor.format).or_default() += 1;
    }
    let other = converted.quantised.iter().filter_map(|tensor| Some((tensor, tensor.other()?)));
    let other: Vec<String> =
        other.map(|(tensor, asked)| format!("{} ({}, not {asked})", tensor.key, tensor.format)).collect();
    if console.json {
        return print_json(
            &json!({
                "folder": args.out,
                "bytes": converted.bytes,
                "merged": converted.merged,
                "quantised": formats,
                "other_format": other,
            }),
            true,
        );
    }
    if !other.is_empty() {
        console.warn(format_args!(
            "{} matrices got another format than {:?} asks for, since their rows are no whole blocks: {}",
            other.len(),
            args.to.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default(),
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
