//! A matrix of the decoder in fewer bits: as its file holds it, or quantised while it is read.

use burn::tensor::{DType, Device, TensorData};

use super::adapter::Branch;
use super::convert::read_as;
use super::{StoredTensor, WeightsError};
use crate::error::Result;
use crate::nn;
use crate::quant::bnb::{AbsmaxStorage, FourBit, Int8Rows};
use crate::quant::ggml::GgmlType;
use crate::quant::{FourBitMatrix, GgmlMatrix, QuantMatrix};

/// What a matrix is quantised to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatrixFormat {
    /// bitsandbytes' NF4, with double quantisation.
    Nf4,
    /// bitsandbytes' eight bits with a scale a row.
    Int8,
    /// Blocks of GGML.
    Ggml(GgmlType),
}

/// Values that are floats at a time, where the format can be computed by pieces.
const PIECE: usize = 1 << 20;

impl MatrixFormat {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nf4 => "nf4",
            Self::Int8 => "int8",
            Self::Ggml(format) => format.name(),
        }
    }

    /// The matrix of these values, `[d_output, d_input]`; `dtype` is what PyTorch calls the floats that they were.
    pub fn quantise(self, values: &[f32], shape: [usize; 2], dtype: &str) -> QuantMatrix {
        match self {
            Self::Nf4 => {
                let tensor = FourBit::quantise_nf4(values, &shape, dtype, AbsmaxStorage::Double);
                FourBitMatrix::new(tensor).expect("of two extents").into()
            }
            Self::Int8 => Int8Rows::quantise(values, shape[1]).into(),
            Self::Ggml(format) => ggml(format, shape, nn::quantise(format, values, shape[1])),
        }
    }

    /// The matrix of a file with what `branch` adds to it, and whether all its values are finite. In memory are floats of a piece of
    /// it, where format and file can be cut, and of the whole otherwise.
    ///
    /// # Errors
    /// [`WeightsError`] where the file cannot give it, or holds no matrix.
    pub fn read(
        self,
        stored: &StoredTensor,
        branch: Option<Branch<'_>>,
        device: &Device,
    ) -> Result<(QuantMatrix, bool)> {
        let shape = matrix_shape(stored)?;
        if let (Self::Ggml(format), None) = (self, branch) {
            let (blocks, finite) = blocks_by_pieces(stored, format, shape)?;
            return Ok((ggml(format, shape, blocks), finite));
        }
        let (values, finite) = match branch {
            Some(branch) => {
                let (merged, finite) = branch.merged(stored, device)?;
                (merged.into_data(), finite)
            }
            None => read_as(stored, DType::F32)?,
        };
        Ok((self.quantise(&floats(stored, values)?, shape, "float32"), finite))
    }
}

impl StoredTensor {
    /// A matrix in fewer bits as its file holds it, with nothing computed; `None` for floats, and for some rows of what
    /// bitsandbytes holds.
    ///
    /// # Errors
    /// Where the file cannot give it, its parts do not fit together, or it is no matrix.
    pub(super) fn quantised(&self) -> Result<Option<QuantMatrix>> {
        if let super::StoredDType::Ggml(format) = self.dtype {
            let matrix = GgmlMatrix::new(format, matrix_shape(self)?, self.bytes()?);
            return Ok(Some(matrix.map_err(|error| damaged(self, error))?.into()));
        }
        if let Some(tensor) = self.four_bit()? {
            let matrix = FourBitMatrix::new(tensor).ok_or_else(|| damaged(self, "no matrix"))?;
            return Ok(Some(matrix.into()));
        }
        Ok(self.int8()?.map(QuantMatrix::from))
    }
}

fn ggml(format: GgmlType, shape: [usize; 2], blocks: Vec<u8>) -> QuantMatrix {
    GgmlMatrix::new(format, shape, blocks).expect("blocks of all rows").into()
}

fn matrix_shape(stored: &StoredTensor) -> Result<[usize; 2]> {
    <[usize; 2]>::try_from(stored.shape.as_slice()).map_err(|_| damaged(stored, "no matrix").into())
}

fn damaged(stored: &StoredTensor, reason: impl std::fmt::Display) -> WeightsError {
    WeightsError::Damaged { path: stored.path.to_path_buf(), reason: format!("{}: {reason}", stored.key) }
}

fn floats(stored: &StoredTensor, values: TensorData) -> Result<Vec<f32>> {
    values.try_into_vec::<f32>().map_err(|error| damaged(stored, format_args!("{error:?}")).into())
}

/// Rows of a matrix that are floats at a time: all, where each piece would read the whole matrix again.
fn rows_at_once(stored: &StoredTensor, [rows, columns]: [usize; 2]) -> usize {
    let most = if stored.is_cut_cheaply() { PIECE / columns.max(1) } else { rows };
    most.clamp(1, rows.max(1))
}

/// The blocks of a matrix of floats, and whether all its values are finite.
fn blocks_by_pieces(stored: &StoredTensor, format: GgmlType, shape: [usize; 2]) -> Result<(Vec<u8>, bool)> {
    let ([rows, columns], at_once) = (shape, rows_at_once(stored, shape));
    let (mut blocks, mut all_finite) = (Vec::with_capacity(rows * format.row_bytes(columns)), true);
    for first in (0..rows).step_by(at_once) {
        let (values, finite) = read_as(&stored.rows(first, at_once.min(rows - first)), DType::F32)?;
        blocks.extend(nn::quantise(format, &floats(stored, values)?, columns));
        all_finite &= finite;
    }
    Ok((blocks, all_finite))
}

#[cfg(test)]
mod tests {
    use super::super::file::{Bytes, open_file};
    use super::super::{NewTensor, write_safetensors};
    use super::*;

    /// A `.bin` file's tensors, bitsandbytes' and interleaved heads are read whole for any of their rows.
    #[test]
    fn a_matrix_that_is_read_whole_for_each_row_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.safetensors");
        let shape = [2048, 1024];
        let values: Vec<u8> =
            (0..shape[0] * shape[1]).flat_map(|i| ((i % 251) as f32).to_le_bytes()).collect();
        let read = || Ok::<_, std::convert::Infallible>(values.clone());
        write_safetensors(&path, None, [NewTensor::new("a", safetensors::Dtype::F32, shape, read)]).unwrap();
        let plain = open_file(&path).unwrap().remove("a").unwrap();
        let (whole, len) = (Box::new(plain.clone()), values.len());
        let within = StoredTensor { bytes: Bytes::Within { whole, skip: 0, len }, ..plain.clone() };
        assert_eq!((rows_at_once(&plain, shape), rows_at_once(&within, shape)), (1024, 2048));
        let blocks = |stored| blocks_by_pieces(stored, GgmlType::Q8_0, shape).unwrap();
        assert!(blocks(&plain) == blocks(&within));
    }
}
