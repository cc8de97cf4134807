//! GGUF files, which llama.cpp reads: a decoder whose matrices may be in blocks, with its sizes beside it.

mod decoder;
mod header;
mod input;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::header::{Header, TensorInfo};
use super::stored::{Bytes, damaged};
use super::{StoredDType, StoredTensor, WeightsError};
use crate::config::LlmConfig;
use crate::error::Result;
use crate::nn::{RopeScaling, RotaryConfig};
use crate::quant::ggml::GgmlType;

/// The name of the tensor that says how Llama 3.1's scaling divides the rotary frequencies. It is no weight.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// A GGUF file of a Llama or Qwen2 decoder, with no tensor read yet.
pub struct Gguf {
    path: PathBuf,
    name: Option<String>,
    config: LlmConfig,
    tensors: BTreeMap<String, StoredTensor>,
    rope_factors: Option<StoredTensor>,
}

impl Gguf {
    /// Reads metadata and the table of tensors.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`] for a file that is cut or no GGUF file, [`WeightsError::GgmlType`] for a tensor in a format that is
    /// not read, [`Error::Config`](crate::Error::Config) for another kind of model.
    pub fn open(path: &Path) -> Result<Self> {
        let Header { metadata, tensors: infos } = Header::read(path)?;
        let config = decoder::config(path, &metadata, &infos)?;
        let shared = Arc::new(path.to_path_buf());
        let mut tensors = BTreeMap::new();
        let mut rope_factors = None;
        for info in infos {
            let key = decoder::reference_key(&info.name);
            let stored = stored(&shared, &key, &info, interleaved_head(&info, &config))?;
            if info.name == ROPE_FACTORS {
                rope_factors = Some(stored);
            } else if tensors.insert(key, stored).is_some() {
                return Err(damaged(path, format!("two tensors are called {}", info.name)));
            }
        }
        let name = metadata.text("general.name").map(str::to_owned);
        Ok(Self { path: path.to_path_buf(), name, config, tensors, rope_factors })
    }

    /// What the file calls the model.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The decoder's sizes by the file's metadata.
    pub fn config(&self) -> &LlmConfig {
        &self.config
    }

    /// Checks that the file holds the decoder that `config` describes, as far as shapes do not say so.
    ///
    /// # Errors
    /// [`WeightsError::OtherDecoder`] with the first thing that differs.
    pub fn check(&self, config: &LlmConfig) -> Result<()> {
        if let Some((key, found, expected)) = decoder::difference(&self.config, config) {
            return Err(self.differs(key, found, expected));
        }
        self.check_rope_factors(config)
    }

    fn check_rope_factors(&self, config: &LlmConfig) -> Result<()> {
        let scaled = matches!(config.rope_scaling, Some(RopeScaling::Llama3 { .. }));
        let Some(tensor) = &self.rope_factors else {
            let (found, expected) = ("none".into(), "llama3".into());
            return if scaled { Err(self.differs("rope_scaling", found, expected)) } else { Ok(()) };
        };
        let mut factors = Vec::new();
        tensor.read_values(|piece| factors.extend_from_slice(piece))?;
        let rotary = config.rotary();
        let plain = RotaryConfig { scaling: None, ..rotary }.inverse_frequencies(0);
        let scaled = if scaled { rotary.inverse_frequencies(0) } else { plain.clone() };
        let expected: Vec<f32> = plain.iter().zip(scaled).map(|(plain, scaled)| plain / scaled).collect();
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * b.abs();
        if factors.len() == expected.len() && factors.iter().zip(&expected).all(near) {
            return Ok(());
        }
        let last = |factors: &[f32]| match factors.last() {
            Some(last) => format!("a division by up to {last}"),
            None => "none".into(),
        };
        Err(self.differs("rope_scaling", last(&factors), last(&expected)))
    }

    fn differs(&self, key: &'static str, found: String, expected: String) -> crate::Error {
        WeightsError::OtherDecoder { path: self.path.clone(), key, found, expected }.into()
    }

    /// The tensors under the reference's keys, in Hugging Face's order of rows.
    pub(super) fn into_tensors(self) -> BTreeMap<String, StoredTensor> {
        self.tensors
    }
}

/// Rows of a head, where the file interleaves the two halves of each: q and k of the architecture `llama`.
fn interleaved_head(info: &TensorInfo, config: &LlmConfig) -> Option<usize> {
    decoder::is_interleaved(&info.name, config.family).then_some(config.head_dim)
}

fn stored(path: &Arc<PathBuf>, key: &str, info: &TensorInfo, head: Option<usize>) -> Result<StoredTensor> {
    let TensorInfo { name, shape, format, offset, len } = info;
    let bytes = match head {
        None => Bytes::Plain { offset: *offset, len: *len },
        Some(head) => {
            let rows = shape[0];
            if head == 0 || !rows.is_multiple_of(head) {
                let reason = format!("tensor {name} has {rows} rows, which are no whole heads of {head}");
                return Err(damaged(path, reason));
            }
            let row_bytes = len / rows.max(1);
            Bytes::Interleaved { offset: *offset, len: *len, head_bytes: head * row_bytes, row_bytes }
        }
    };
    let dtype = match format {
        GgmlType::F32 => StoredDType::F32,
        GgmlType::F16 => StoredDType::F16,
        GgmlType::BF16 => StoredDType::BF16,
        other => StoredDType::Ggml(*other),
    };
    let (path, dtype_name) = (path.clone(), format.name().to_owned());
    Ok(StoredTensor { path, key: key.to_owned(), dtype, dtype_name, shape: shape.clone(), bytes })
}
