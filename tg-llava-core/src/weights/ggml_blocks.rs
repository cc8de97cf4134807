//! GGML's blocks in safetensors files: the bytes of a matrix under its key, as `[rows, bytes of a row]`, and beside it what they are.
//!
//! Unlike a GGUF file, such a folder stays one checkpoint: towers and bridges are in it, keys and shards are as for floats, and a row may
//! be no whole number of blocks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bnb::wrong;
use super::{StoredDType, StoredTensor, TensorProblem, WeightsError};
use crate::error::Result;
use crate::quant::ggml::GgmlType;

/// What follows a matrix's key in that of its state.
pub(super) const STATE: &str = ".quant_state.ggml";

/// What the blocks of a matrix are, in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BlockState {
    /// The format, as llama.cpp writes it.
    #[serde(rename = "type")]
    format: String,
    /// `[d_output, d_input]`
    shape: [usize; 2],
}

impl BlockState {
    pub fn new(format: GgmlType, shape: [usize; 2]) -> Self {
        Self { format: format.name().into(), shape }
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and strings alone")
    }
}

/// Puts a matrix in the place of each pair of bytes and state.
pub(super) fn join_blocks(tensors: &mut BTreeMap<String, StoredTensor>) -> Result<()> {
    let matrix = |key: &String| key.strip_suffix(STATE).map(str::to_owned);
    for key in tensors.keys().filter_map(matrix).collect::<Vec<_>>() {
        let Some(state) = tensors.remove(&format!("{key}{STATE}")) else { continue };
        let Some(blocks) = tensors.remove(&key) else {
            let (path, problem) = (state.path.to_path_buf(), TensorProblem::Missing);
            return Err(WeightsError::Tensor { path, name: key, problem }.into());
        };
        let read: Result<BlockState, _> = serde_json::from_slice(&state.bytes()?);
        let BlockState { format, shape } = read.map_err(|e| wrong(&state, TensorProblem::State(e)))?;
        let known = GgmlType::ALL.into_iter().find(|known| known.name() == format);
        let Some(known) = known else {
            let (path, known) = (state.path.to_path_buf(), GgmlType::names());
            return Err(WeightsError::GgmlType { path, tensor: key, found: format, known }.into());
        };
        // No block is of more than 256 values, nor has none.
        let longest = usize::try_from(blocks.byte_len()).unwrap_or(usize::MAX).saturating_mul(256);
        let expected = [shape[0], known.row_bytes(shape[1].min(longest))];
        if shape[1] > longest || blocks.shape != expected {
            let (expected, found) = (format!("{expected:?} bytes"), format!("{:?}", blocks.shape));
            return Err(wrong(&blocks, TensorProblem::Layout { expected, found }));
        }
        let (dtype, dtype_name) = (StoredDType::Ggml(known), known.name().to_owned());
        tensors.insert(key, StoredTensor { dtype, dtype_name, shape: shape.to_vec(), ..blocks });
    }
    Ok(())
}
