use std::path::PathBuf;

use crate::error::shortened;
use crate::quant::bnb::BnbError;

/// Any error that can cross threads.
pub(super) type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// A checkpoint that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A folder without weights.
    #[error(
        "{dir}: no weights here; a checkpoint folder holds model.safetensors, model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json"
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// Two files of a folder hold the same weights, so that nothing says which are meant.
    #[error(
        "{first} and {second} both hold the model's weights ({what}); keep the one that is meant and remove the other"
    )]
    TwoForms {
        /// One file.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
        /// What the two are, or a key under which they hold different tensors.
        what: String,
    },
    /// An index that names something other than a file of its own folder.
    #[error(
        "{index}: {tensor} is said to be in {shard:?}; shards are files of the same folder, named without a path"
    )]
    OutsideFolder {
        /// The index file.
        index: PathBuf,
        /// What it names.
        shard: String,
        /// A tensor that it places there.
        tensor: String,
    },
    /// A shard that the index names is not there.
    #[error(
        "{index}: names {shard}, which is not in the folder; {tensors} tensor(s) are missing with it (first: {first}); fetch the file again"
    )]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The shard's file name.
        shard: String,
        /// Tensors that the index places there.
        tensors: usize,
        /// One of them.
        first: String,
    },
    /// An index that names a tensor which its shard does not hold.
    #[error(
        "{index}: says that {tensor} is in {shard}, but it is not; the folder mixes files of two checkpoints"
    )]
    NotInShard {
        /// The index file.
        index: PathBuf,
        /// The shard's file name.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// A file that is cut or damaged, or a folder that holds some files of a save alone.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, with the tensor's name where one is known.
        reason: String,
    },
    /// A dtype that weights cannot have.
    #[error(
        "{path}: {tensor} has dtype {dtype}; weights must be f32, f16, bf16 or one of the quantised formats"
    )]
    DType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The dtype in the file.
        dtype: String,
    },
    /// A folder quantised by a tool whose format is not read.
    #[error(
        "{path}: quantization_config.quant_method = {method:?}; bitsandbytes and ggml alone are read, and GGUF files"
    )]
    QuantMethod {
        /// The config.json.
        path: PathBuf,
        /// The method.
        method: String,
    },
    /// A matrix that has no form in fewer bits.
    #[error(
        "`{key}` has values that are not finite, which {format} cannot hold; convert a checkpoint whose weights are whole, or \
         another --dtype where float16 is too narrow for them"
    )]
    NotFinite {
        /// The matrix.
        key: String,
        /// What it was to become.
        format: &'static str,
    },
    /// A tensor of a GGUF file in a format that is not read.
    #[error("{path}: tensor `{tensor}` has type {found}; types that are read: {known}")]
    GgmlType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// Types that are read.
        known: String,
    },
    /// A GGUF file of another decoder than the one that config.json describes.
    #[error(
        "{path}: not the decoder that config.json describes: {key} is {found} in the file, {expected} by config.json"
    )]
    OtherDecoder {
        /// The file.
        path: PathBuf,
        /// What differs.
        key: &'static str,
        /// In the file.
        found: String,
        /// In config.json.
        expected: String,
    },
    /// Keys that do not match the model, all in one message.
    #[error("{}", mismatch(.missing, .unknown, .misshapen))]
    Mismatch {
        /// Keys that the model needs and the files lack.
        missing: Vec<String>,
        /// Keys in the files that the model has no place for, with their file.
        unknown: Vec<String>,
        /// Keys whose shape differs, with both shapes.
        misshapen: Vec<String>,
    },
    /// A folder of adapters without the bridges that were trained with them, over a decoder that has none either.
    #[error(
        "{dir}: holds an adapter, but nothing here or in {base} holds the {bridges}: they are in non_lora_trainables.bin, which the training \
         writes beside the adapter at its end; fetch that file too, or name a --base that has them"
    )]
    NoBridges {
        /// The folder.
        dir: PathBuf,
        /// The decoder's.
        base: PathBuf,
        /// The bridges.
        bridges: String,
    },
    /// A base model that a folder builds on.
    #[error("{dir}: holds {what} only; the decoder's folder is also needed ({file} names {name:?}): {hint}")]
    NeedsBase {
        /// The folder.
        dir: PathBuf,
        /// What it holds.
        what: &'static str,
        /// The file that names the base.
        file: &'static str,
        /// The base's name there.
        name: String,
        /// What to do.
        hint: String,
    },
    /// Files cannot be saved there.
    #[error("{path}: nothing was saved: {reason}")]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// One tensor cannot be written, or is not what the reader expects.
    #[error("{path}, tensor `{name}`: {problem}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        #[source]
        problem: TensorProblem,
    },
}

/// What is wrong with one tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// Two tensors of a file have this name.
    #[error("there are two of this name")]
    Duplicate,
    /// The file does not have it.
    #[error("not in the file")]
    Missing,
    /// It is there with another element type or shape.
    #[error("expected {expected}, found {found}")]
    Layout {
        /// Element type and shape that were asked for.
        expected: String,
        /// Those in the file.
        found: String,
    },
    /// The bytes handed over do not fill the shape.
    #[error("its shape takes {expected} bytes, but {found} were given")]
    Length {
        /// Bytes of element type and shape together.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// The shape does not fit into memory.
    #[error("shape {shape:?} is too large")]
    TooLarge {
        /// Extents.
        shape: Vec<usize>,
    },
    /// Its parts do not fit together.
    #[error(transparent)]
    Quantised(#[from] BnbError),
    /// What its bytes are does not parse.
    #[error("not valid JSON for this use: {0}")]
    State(serde_json::Error),
    /// A layout of bytes that is not read.
    #[error("weight_format = {0}; rows one after the other (0) alone are read")]
    WeightFormat(u8),
    /// Its values could not be fetched.
    #[error("its values could not be read: {0}")]
    Values(BoxedError),
}

/// How many keys of a kind are printed before the rest is counted.
const SHOWN: usize = 12;

fn mismatch(missing: &[String], unknown: &[String], misshapen: &[String]) -> String {
    let mut out = String::from("the checkpoint does not fit the model that config.json describes:");
    for (what, keys) in [("missing", missing), ("unknown", unknown), ("wrong shape", misshapen)] {
        if keys.is_empty() {
            continue;
        }
        out += &format!("\n  {what} ({}):", keys.len());
        for key in keys.iter().take(SHOWN) {
            out += &format!("\n    {}", shortened(key));
        }
        if keys.len() > SHOWN {
            out += &format!("\n    ... and {} more", keys.len() - SHOWN);
        }
    }
    out
}
