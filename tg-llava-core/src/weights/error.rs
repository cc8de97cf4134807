use std::path::PathBuf;

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
    /// A file that is cut or damaged.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the tensor's name where one is known.
        reason: String,
    },
    /// A dtype that weights cannot have.
    #[error("{path}: {tensor} has dtype {dtype}; weights must be f32, f16 or bf16")]
    DType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The dtype in the file.
        dtype: String,
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
    /// A base model that a folder of adapters needs.
    #[error(
        "{dir}: holds stage-1 files only; the decoder's folder is also needed (config.json names {name:?}): {hint}"
    )]
    NeedsBase {
        /// The folder.
        dir: PathBuf,
        /// `_name_or_path` of its config.json.
        name: String,
        /// What to do.
        hint: String,
    },
    /// A file could not be written.
    #[error("{path}: could not be written: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
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
            out += &format!("\n    {key}");
        }
        if keys.len() > SHOWN {
            out += &format!("\n    ... and {} more", keys.len() - SHOWN);
        }
    }
    out
}
