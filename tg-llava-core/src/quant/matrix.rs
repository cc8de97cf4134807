use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Device};

use super::PackedMatrix;
use super::bnb::{FourBit, Int8Rows};
use super::ggml::{GgmlType, dequantise};

/// A quantised matrix in memory, `[d_output, d_input]`, as checkpoints hold it. Cloning it copies no bytes.
#[derive(Debug, Clone)]
pub enum QuantMatrix {
    /// Blocks of GGML.
    Ggml(GgmlMatrix),
    /// Four bits of bitsandbytes.
    FourBit(FourBitMatrix),
    /// Eight bits of bitsandbytes.
    Int8(Arc<Int8Rows>),
    /// Blocks of GGML in the memory of a GPU.
    Packed(Box<PackedMatrix>),
}

/// How activations meet a quantised matrix in products of a few rows; products of many rows take f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// As 8-bit integers: the faster way by far.
    #[default]
    Int8,
    /// As f32: the numbers of the dequantised matrix, for checks; a row of a batch equals the single run with any number of rows.
    F32,
}

/// A matrix of GGML's blocks, row by row, each filled up to whole blocks.
#[derive(Debug, Clone)]
pub struct GgmlMatrix {
    format: GgmlType,
    shape: [usize; 2],
    blocks: Arc<Vec<u8>>,
    activations: Activations,
}

/// A matrix in four bits, as bitsandbytes holds it; blocks go through the ends of rows.
#[derive(Debug, Clone)]
pub struct FourBitMatrix {
    shape: [usize; 2],
    tensor: Arc<FourBit>,
}

impl FourBitMatrix {
    /// The tensor as a matrix `[d_output, d_input]`; `None` where it has not two extents.
    pub fn new(tensor: FourBit) -> Option<Self> {
        let shape = <[usize; 2]>::try_from(tensor.state().shape.as_slice()).ok()?;
        Some(Self { shape, tensor: Arc::new(tensor) })
    }

    /// The tensor.
    pub fn tensor(&self) -> &FourBit {
        &self.tensor
    }
}

/// Bytes that are no matrix of the stated size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} bytes, where {rows} rows of {columns} values in {format} take {expected}")]
pub struct WrongLength {
    /// The format.
    pub format: GgmlType,
    /// Rows of the matrix.
    pub rows: usize,
    /// Values of a row.
    pub columns: usize,
    /// Bytes that it takes.
    pub expected: usize,
    /// Bytes that there are.
    pub found: usize,
}

impl GgmlMatrix {
    /// A matrix `[d_output, d_input]` of these blocks.
    ///
    /// # Errors
    /// Where there are more or fewer bytes than it takes.
    pub fn new(format: GgmlType, shape: [usize; 2], blocks: Vec<u8>) -> Result<Self, WrongLength> {
        let [rows, columns] = shape;
        let (expected, found) = (rows * format.row_bytes(columns), blocks.len());
        match expected == found {
            true => Ok(Self { format, shape, blocks: Arc::new(blocks), activations: Activations::default() }),
            false => Err(WrongLength { format, rows, columns, expected, found }),
        }
    }

    /// The same, with `activations` in products of a few rows.
    pub fn with_activations(self, activations: Activations) -> Self {
        Self { activations, ..self }
    }

    /// The format.
    pub fn format(&self) -> GgmlType {
        self.format
    }

    /// `[d_output, d_input]`
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The blocks, row by row.
    pub fn blocks(&self) -> &[u8] {
        &self.blocks
    }

    /// How activations meet it.
    pub fn activations(&self) -> Activations {
        match self.format.is_float() {
            true => Activations::F32,
            false => self.activations,
        }
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.shape[1])
    }

    /// The blocks of `rows`.
    #[inline(always)]
    fn rows(&self, rows: Range<usize>) -> &[u8] {
        let len = self.row_bytes();
        &self.blocks[rows.start * len..rows.end * len]
    }
}

impl QuantMatrix {
    /// The same beside other weights on `device`: in its memory where somebody computes with it there, otherwise where it is.
    pub fn beside(self, device: &Device) -> Self {
        let placed = match &self {
            Self::Ggml(matrix) => PackedMatrix::place(matrix, device),
            Self::FourBit(_) | Self::Int8(_) | Self::Packed(_) => None,
        };
        placed.map_or(self, |placed| Self::Packed(Box::new(placed)))
    }

    /// `[d_output, d_input]`
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Ggml(matrix) => matrix.shape,
            Self::FourBit(matrix) => matrix.shape,
            Self::Int8(matrix) => matrix.shape(),
            Self::Packed(matrix) => matrix.shape(),
        }
    }

    /// The name of the format.
    pub fn format_name(&self) -> &'static str {
        match self {
            Self::Ggml(matrix) => matrix.format.name(),
            Self::FourBit(matrix) => matrix.tensor.state().kind.name(),
            Self::Int8(_) => "int8",
            Self::Packed(matrix) => matrix.format().name(),
        }
    }

    /// Bytes in memory.
    pub fn num_bytes(&self) -> usize {
        match self {
            Self::Ggml(matrix) => matrix.blocks.len(),
            Self::FourBit(matrix) => matrix.tensor.byte_len(),
            Self::Int8(matrix) => matrix.byte_len(),
            Self::Packed(matrix) => matrix.num_bytes(),
        }
    }

    /// The bytes as the file has them, where they are blocks.
    pub fn blocks(&self) -> Option<&[u8]> {
        match self {
            Self::Ggml(matrix) => Some(&matrix.blocks),
            Self::FourBit(_) | Self::Int8(_) | Self::Packed(_) => None,
        }
    }

    /// The same, with `activations` in products of a few rows where it is blocks in the memory of the CPU; all others meet floats.
    pub fn with_activations(self, activations: Activations) -> Self {
        match self {
            Self::Ggml(matrix) => Self::Ggml(matrix.with_activations(activations)),
            other => other,
        }
    }

    /// The values of `rows`, one row behind the other.
    ///
    /// # Panics
    /// Where there are no such rows, or `out` is not of their size: a programmer's error.
    #[inline(always)]
    pub fn dequantise_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        match self {
            Self::Ggml(matrix) => dequantise(matrix.format, matrix.rows(rows), matrix.shape[1], out),
            Self::FourBit(matrix) => {
                matrix.tensor.dequantise(rows.start * matrix.shape[1], out);
                let round = matrix.tensor.state().rounding();
                out.iter_mut().for_each(|value| *value = round(*value));
            }
            Self::Int8(matrix) => matrix.dequantise(rows.start * matrix.shape()[1], out),
            Self::Packed(matrix) => {
                let values = matrix.dequantised(rows, DType::F32).into_data();
                out.copy_from_slice(values.as_slice().expect("floats of the backend's own making"));
            }
        }
    }
}

impl From<FourBitMatrix> for QuantMatrix {
    fn from(matrix: FourBitMatrix) -> Self {
        Self::FourBit(matrix)
    }
}

impl From<Int8Rows> for QuantMatrix {
    fn from(matrix: Int8Rows) -> Self {
        Self::Int8(Arc::new(matrix))
    }
}

impl From<GgmlMatrix> for QuantMatrix {
    fn from(matrix: GgmlMatrix) -> Self {
        Self::Ggml(matrix)
    }
}
