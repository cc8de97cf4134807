//! `--quantize`: what it means for loading, and what became of it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use burn::tensor::{DType, Device};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tg_llava_core::quant::{Activations, PackedMatrix, Scheme};
use tg_llava_core::weights::{Encoding, QuantisedTensor, Quantization};

use crate::console::Console;
use crate::device::Opened;
use crate::failure::Failure;
use crate::load::first_few;

/// How the decoder's matrices are held.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Device")]
pub struct QuantizeArgs {
    /// Hold the decoder's matrices in 8 or 4 bits, quantised while they are read
    #[arg(long, value_name = "FORMAT")]
    pub quantize: Option<SchemeArg>,
    /// What meets quantised matrices in products of a few rows on the CPU: 8-bit integers, or f32, which is slower
    #[arg(long, value_name = "HOW", default_value = "int8")]
    pub activations: ActivationsArg,
}

/// `--quantize`: one of [`Scheme::ALL`] by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemeArg(pub Scheme);

static SCHEMES: LazyLock<[SchemeArg; Scheme::ALL.len()]> = LazyLock::new(|| Scheme::ALL.map(SchemeArg));

impl ValueEnum for SchemeArg {
    fn value_variants<'a>() -> &'a [Self] {
        &*SCHEMES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

/// `--activations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[expect(missing_docs, reason = "the values' help would repeat their names")]
pub enum ActivationsArg {
    #[default]
    Int8,
    F32,
}

impl QuantizeArgs {
    /// These as a checkpoint is loaded with them.
    pub fn quantization(&self) -> Quantization {
        Quantization {
            encoding: self.quantize.map_or(Encoding::Floats, |scheme| Encoding::Ggml(scheme.0)),
            activations: match self.activations {
                ActivationsArg::Int8 => Activations::Int8,
                ActivationsArg::F32 => Activations::F32,
            },
        }
    }

    /// What decides the numbers of an answer, beside the files: two runs with one name give the same.
    pub fn number_format(&self, opened: &Opened, matrices: &[QuantisedTensor]) -> String {
        let dtype = opened.dtype;
        let formats = by_format(matrices);
        if formats.is_empty() {
            return dtype.name().to_owned();
        }
        let formats = formats.iter().map(|(format, (count, _))| format!("{count} {format}"));
        let formats = formats.collect::<Vec<_>>().join(", ");
        let activations = match PackedMatrix::may_lie_on(&opened.device) {
            true => Activations::F32,
            false => self.quantization().activations,
        };
        format!("{}; {formats}; activations {activations:?}", dtype.name())
    }
}

/// Whether quantised weights are computed with on `device` where other numbers are `dtype`: on GPUs that this build has kernels for, and
/// on the CPU in f32.
pub fn computes(device: &Device, dtype: DType) -> bool {
    PackedMatrix::may_lie_on(device) || (*device == Device::flex() && dtype == DType::F32)
}

/// What of `wanted` holds on this device; `None` where all weights are floats.
///
/// # Errors
/// Where quantising was asked for and the device cannot compute with it.
pub fn on_device(wanted: Option<Quantization>, opened: &Opened) -> Result<Option<Quantization>, Failure> {
    let can = computes(&opened.device, opened.dtype);
    match wanted {
        Some(Quantization { encoding, .. }) if !can && encoding != Encoding::Floats => {
            Err(Failure::input(format_args!(
                "--quantize {}: {} does not compute with quantised weights in {}; GPUs do, and the CPU in f32: ask for --dtype f32, for --device flex, or leave --quantize out",
                encoding.name(),
                opened.spec,
                opened.dtype.name(),
            )))
        }
        _ => Ok(wanted.filter(|_| can)),
    }
}

/// Says which matrices the files hold in fewer bits than memory does; `dtype` is that of the floats.
pub fn tell_floats(dequantised: &BTreeMap<String, Vec<String>>, dtype: DType, console: &Console) {
    for (format, keys) in dequantised {
        console.note(format_args!(
            "{} tensors that the files hold in {format} are held as floats ({}): {}",
            keys.len(),
            dtype.name(),
            first_few(keys)
        ));
    }
}

/// Says in which formats the decoder's matrices are, and which of them are in another one than was asked for.
pub fn tell(matrices: &[QuantisedTensor], console: &Console) {
    if matrices.is_empty() {
        return;
    }
    let formats = by_format(matrices).into_iter();
    let formats: Vec<String> = formats
        .map(|(format, (count, bytes))| format!("{count} in {format} ({} MB)", bytes / 1_000_000))
        .collect();
    console.detail(format_args!("quantised matrices: {}", formats.join(", ")));
    let mut others: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (matrix, asked) in matrices.iter().filter_map(|matrix| Some((matrix, matrix.other()?))) {
        others.entry((asked, matrix.format)).or_default().push(matrix.key.clone());
    }
    for ((asked, format), keys) in others {
        console.note(format_args!(
            "{} matrices are {format} where {asked} was asked for, which their rows or their file do not allow: {}",
            keys.len(),
            first_few(&keys)
        ));
    }
}

/// The same for programs, with all keys.
pub fn to_json(matrices: &[QuantisedTensor]) -> Value {
    let formats: BTreeMap<&str, Value> = by_format(matrices)
        .into_iter()
        .map(|(format, (count, bytes))| (format, json!({ "tensors": count, "bytes": bytes })))
        .collect();
    let others: Vec<Value> = matrices
        .iter()
        .filter_map(|matrix| {
            Some(json!({ "tensor": matrix.key, "asked": matrix.other()?, "format": matrix.format }))
        })
        .collect();
    json!({ "formats": formats, "other_than_asked": others })
}

/// Number of matrices and bytes of each format.
fn by_format(matrices: &[QuantisedTensor]) -> BTreeMap<&'static str, (usize, usize)> {
    let mut formats = BTreeMap::new();
    for matrix in matrices {
        let entry: &mut (usize, usize) = formats.entry(matrix.format).or_default();
        entry.0 += 1;
        entry.1 += matrix.bytes;
    }
    formats
}
