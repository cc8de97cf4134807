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
        let row_bytes = known.checked_row_bytes(shape[1]);
        let fits = row_bytes.is_some_and(|row_bytes| blocks.shape == [shape[0], row_bytes]);
        if !fits || !blocks.dtype_name.eq_ignore_ascii_case("u8") {
            let expected = match row_bytes {
                Some(row_bytes) => format!("U8 {:?}", [shape[0], row_bytes]),
                None => format!("U8 and fewer than {} values a row", shape[1]),
            };
            let found = format!("{} {:?}", blocks.dtype_name, blocks.shape);
            return Err(wrong(&blocks, TensorProblem::Layout { expected, found }));
        }
        let (dtype, dtype_name) = (StoredDType::Ggml(known), known.name().to_owned());
        tensors.insert(key, StoredTensor { dtype, dtype_name, shape: shape.to_vec(), ..blocks });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::super::file::open_file;
    use super::super::{NewTensor, write_safetensors};
    use super::*;

    /// What is said of a file with such blocks beside such a state.
    fn joined((dtype, blocks): (Dtype, [usize; 2]), shape: [usize; 2]) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.safetensors");
        let state = BlockState::new(GgmlType::Q8_0, shape).to_json();
        let key = format!("q.weight{STATE}");
        let bytes = vec![0; blocks.iter().product::<usize>() * dtype.bitsize() / 8];
        let give = |bytes: Vec<u8>| move || Ok::<_, std::convert::Infallible>(bytes.clone());
        let len = state.len();
        let tensors = [
            NewTensor::new("q.weight", dtype, blocks, give(bytes)),
            NewTensor::new(&key, Dtype::U8, [len], give(state)),
        ];
        write_safetensors(&path, None, tensors).unwrap();
        join_blocks(&mut open_file(&path).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn blocks_that_are_no_bytes_or_do_not_fit_their_state_are_refused() {
        joined((Dtype::U8, [2, 34]), [2, 32]).unwrap();
        for (blocks, shape, part) in [
            ((Dtype::F32, [2, 34]), [2, 32], "expected U8 [2, 34], found F32 [2, 34]"),
            ((Dtype::I8, [2, 34]), [2, 32], "found I8 [2, 34]"),
            ((Dtype::U8, [2, 34]), [2, 33], "expected U8 [2, 68], found U8 [2, 34]"),
            ((Dtype::U8, [2, 34]), [2, usize::MAX], "found U8 [2, 34]"),
            ((Dtype::U8, [0, 34]), [0, usize::MAX], "found U8 [0, 34]"),
        ] {
            let error = joined(blocks, shape).unwrap_err();
            assert!(error.contains("q.weight") && error.contains(part), "{error}");
        }
    }
}
