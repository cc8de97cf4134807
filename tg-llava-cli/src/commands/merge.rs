//! `merge`: an adapter and its decoder as one checkpoint.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use tg_llava_core::burn::tensor::DType;
use tg_llava_core::weights::{Converted, Encoding, ExistingModel, MergeOptions, SaveOptions, merge_adapter};

use super::convert::tell_not_finite;
use crate::args::OutputArgs;
use crate::checkpoint;
use crate::console::{Console, print_json};
use crate::device::{self, Dtype};
use crate::failure::Failure;
use crate::progress::Progress;

/// Arguments of `merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The adapter: a folder, or OWNER/NAME(@REVISION) on Hugging Face
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,
    /// The decoder that the adapter lies over, named like --model [default: the one that the adapter names, inside its folder or beside it]
    #[arg(long, value_name = "MODEL")]
    pub base: Option<PathBuf>,
    /// Folder of the result
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace a model that --out holds
    #[arg(long)]
    pub force: bool,
    /// Add the adapter to the base as it is, or to what 4 bits (NF4) or 8 (int8) give back of it, which an adapter of QLoRA was trained over
    #[arg(long, value_enum, value_name = "BASE", default_value_t)]
    pub merge_into: MergeInto,
    /// Number format of the result [default: that of each tensor as it is]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<Dtype>,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `--merge-into`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[expect(missing_docs, reason = "the option's help says what they are")]
pub enum MergeInto {
    #[default]
    Full,
    #[value(alias = "dequantised")]
    Nf4,
    Int8,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] where the folders do not fit together or the result cannot be written.
pub fn run(args: &MergeArgs) -> Result<(), Failure> {
    let console = Console::new(&args.output);
    let folders = checkpoint::find(Some(&args.model), args.base.as_deref(), &console)?;
    let options = MergeOptions {
        base: folders.base.as_deref(),
        dtype: args.dtype.map(DType::from),
        base_through: match args.merge_into {
            MergeInto::Full => Encoding::Floats,
            MergeInto::Nf4 => Encoding::Nf4,
            MergeInto::Int8 => Encoding::Int8,
        },
        device: &device::any()?,
        max_shard_bytes: SaveOptions::default().max_shard_bytes,
        existing: if args.force { ExistingModel::Replace } else { ExistingModel::Refuse },
    };
    let spinner = Progress::spinner(&console, "merging");
    let converted = merge_adapter(&folders.model, &args.out, &options)?;
    drop(spinner);
    tell_not_finite(&converted, &console);
    let Converted { merged, not_finite, .. } = converted;
    if console.json {
        return print_json(&json!({ "folder": args.out, "merged": merged, "not_finite": not_finite }), true);
    }
    console.note(format_args!("{}: {merged} matrices merged", args.out.display()));
    Ok(())
}
