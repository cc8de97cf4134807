//! What was found in a checkpoint folder, in the shape that `--json` prints.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use tg_llava_core::weights::{Component, StoredTensor};

/// Kinds of folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Decoder, towers, bridges and projector.
    Full,
    /// A decoder that sees no pictures.
    PlainDecoder,
    /// What stage 1 trains, over a decoder in another folder.
    Stage1,
    /// What stage 1 trains; the decoder was not found.
    Stage1WithoutBase,
    /// An adapter over a decoder in another folder, with the bridges.
    Adapter,
    /// The same; the decoder was not found.
    AdapterWithoutBase,
    /// A CLIP or SigLIP folder.
    Tower,
    /// A GGUF file.
    Gguf,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Contents {
    /// The folder.
    pub folder: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Whether it can be used as it is.
    pub complete: bool,
    /// Each part in words.
    #[serde(serialize_with = "as_object")]
    pub description: Vec<(&'static str, String)>,
    /// Sizes by part; skipped tensors are not counted.
    pub parts: BTreeMap<Component, Size>,
    /// The files that the tensors are in.
    pub files: Vec<FileEntry>,
    /// What prevents its use, in words; keys that are missing, unknown or wrong are listed below.
    pub problems: Vec<String>,
    /// Keys that config.json asks for and no file holds.
    pub missing: Vec<String>,
    /// Keys that no part of the model has a place for.
    pub unknown: Vec<KeyInFile>,
    /// Keys whose shape is not the one that config.json asks for.
    pub misshapen: Vec<Misshapen>,
    /// Keys of weights that are no floats.
    pub not_float: Vec<String>,
    /// Keys that loading skips, because the model never uses them.
    pub unused: Vec<String>,
    /// Every tensor (with `-v`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorEntry>,
}

/// Size of a part.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Size {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values.
    pub parameters: u64,
    /// Bytes of the values in the files.
    pub bytes: u64,
    /// Tensors by element type.
    pub dtypes: BTreeMap<String, usize>,
    /// Whether some are in fewer bits than a float.
    pub quantised: bool,
}

/// One weights file.
#[derive(Debug, Clone, Serialize)]
pub struct FileEntry {
    /// Its path, relative to the folder where it is inside.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Tensors that are taken from it.
    pub tensors: usize,
}

/// A key and where it was found.
#[derive(Debug, Clone, Serialize)]
pub struct KeyInFile {
    /// The key.
    pub key: String,
    /// The file, relative to the folder where it is inside.
    pub file: PathBuf,
}

/// A tensor of the wrong shape.
#[derive(Debug, Clone, Serialize)]
pub struct Misshapen {
    /// The key.
    pub key: String,
    /// The shape in the file.
    pub found: Vec<usize>,
    /// The shape that config.json asks for.
    pub expected: Vec<usize>,
}

/// One tensor.
#[derive(Debug, Clone, Serialize)]
pub struct TensorEntry {
    /// The key of a full checkpoint.
    pub key: String,
    /// Element type.
    pub dtype: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// The file, relative to the folder where it is inside.
    pub file: PathBuf,
    /// Whether the model uses it.
    pub used: bool,
}

impl Kind {
    /// Whether a decoder is missing that is elsewhere.
    pub fn lacks_base(self) -> bool {
        matches!(self, Self::Stage1WithoutBase | Self::AdapterWithoutBase)
    }

    /// What it is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::Full => "full checkpoint",
            Self::PlainDecoder => "plain decoder, which sees no pictures",
            Self::Stage1 => "stage-1 files over a decoder",
            Self::Stage1WithoutBase => "stage-1 files; the decoder is elsewhere (name it with --base)",
            Self::Adapter => "adapter over a decoder",
            Self::AdapterWithoutBase => "adapter; the decoder is elsewhere (name it with --base)",
            Self::Tower => "CLIP or SigLIP tower",
            Self::Gguf => "decoder in a GGUF file, which --base takes",
        }
    }
}

impl Size {
    /// Counts a tensor.
    pub fn add(&mut self, tensor: &StoredTensor) {
        self.tensors += 1;
        self.parameters += tensor.num_elements() as u64;
        self.bytes += tensor.byte_len();
        self.quantised |= tensor.dtype.is_quantised();
        *self.dtypes.entry(tensor.dtype_name.to_lowercase()).or_default() += 1;
    }

    /// Bits of a value, scales and the like included.
    pub fn bits(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.parameters.max(1) as f64
    }

    /// Counts another part's tensors.
    pub fn merge(&mut self, other: &Self) {
        self.tensors += other.tensors;
        self.parameters += other.parameters;
        self.bytes += other.bytes;
        self.quantised |= other.quantised;
        for (dtype, count) in &other.dtypes {
            *self.dtypes.entry(dtype.clone()).or_default() += count;
        }
    }
}

/// Titles become keys.
fn as_object<S: Serializer>(lines: &[(&'static str, String)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(lines.iter().map(|(title, text)| (title.replace(' ', "_"), text)))
}
