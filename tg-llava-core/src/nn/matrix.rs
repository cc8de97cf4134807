use std::ops::Range;

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{RowsAlike, kernels};
use crate::quant::QuantMatrix;

/// A matrix of the decoder: plain floats, or quantised.
#[derive(Debug, Clone)]
pub enum Matrix {
    /// Floats, a parameter.
    Float(Param<Tensor<2>>),
    /// Quantised, `[d_output, d_input]`. No parameter: nothing of it learns, visitors do not see it, and it stays where it is.
    Quantised(QuantMatrix),
}

/// The parameter alone, under the matrix's own name: paths and checkpoints do not know this type.
impl Module for Matrix {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        if let Self::Float(param) = self {
            param.visit(visitor);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        self.replace(|param| Module::map(param, mapper))
    }

    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        match self {
            Self::Float(param) => param.collect_devices(devices),
            Self::Quantised(_) => devices,
        }
    }

    fn fork(self, device: &Device) -> Self {
        self.replace(|param| param.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.replace(|param| param.to_device(device))
    }

    fn valid(&self) -> Self {
        self.clone().replace(|param| param.valid())
    }

    fn train(self) -> Self {
        self.replace(Module::train)
    }

    fn materialize(self) -> Self {
        self.replace(Module::materialize)
    }
}

impl ModuleDisplayDefault for Matrix {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Float(param) => content.add_single(param).optional(),
            Self::Quantised(matrix) => {
                let text = format!("{} {:?}", matrix.format_name(), matrix.shape());
                content.add_formatted(&text).optional()
            }
        }
    }
}

impl ModuleDisplay for Matrix {}

impl Matrix {
    fn replace(self, change: impl FnOnce(Param<Tensor<2>>) -> Param<Tensor<2>>) -> Self {
        match self {
            Self::Float(param) => Self::Float(change(param)),
            Self::Quantised(matrix) => Self::Quantised(matrix),
        }
    }

    /// `[d_input, d_output]` of a layer's matrix, whichever way round it is held.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Float(param) => param.lazy_shape().dims(),
            Self::Quantised(matrix) => {
                let [d_output, d_input] = matrix.shape();
                [d_input, d_output]
            }
        }
    }

    /// The parameter, where there is one.
    pub fn float(&self) -> Option<&Param<Tensor<2>>> {
        match self {
            Self::Float(param) => Some(param),
            Self::Quantised(_) => None,
        }
    }

    /// The quantised matrix, where it is one.
    pub fn quantised(&self) -> Option<&QuantMatrix> {
        match self {
            Self::Float(_) => None,
            Self::Quantised(matrix) => Some(matrix),
        }
    }
}

/// Rows of a quantised matrix that are floats at a time.
const PIECE: usize = 1024;

/// Values of a matrix in the memory of a GPU that are floats at a time: what keeps it busy, and fits wherever buffers are small.
const PIECE_ON_GPU: usize = 1 << 24;

/// `x Mᵗ + bias`: few rows by a kernel over the stored bytes, where there is one; otherwise piece by piece of the matrix,
/// whose floats are gone afterwards. Gradients reach `x` alone.
///
/// # Shapes
/// - x: `[.., d_input]`, output: `[.., d_output]`
/// - bias: `[d_output]`
pub(super) fn apply_quantised<const D: usize>(
    matrix: &QuantMatrix,
    x: Tensor<D>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    if let Some(y) = kernels::quantised_matvec(&x, matrix, bias.as_ref()) {
        return y;
    }
    let mut shape = x.dims();
    let [d_output, d_input] = matrix.shape();
    let rows = shape[..D - 1].iter().product::<usize>();
    let x = x.reshape([rows, d_input]);
    shape[D - 1] = d_output;
    let y = few_packed(matrix, &x).unwrap_or_else(|| by_pieces(matrix, x)).reshape(shape);
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// The product with a matrix on a GPU, where it is one and rows are few.
fn few_packed(matrix: &QuantMatrix, x: &Tensor<2>) -> Option<Tensor<2>> {
    match matrix {
        QuantMatrix::Packed(matrix) => matrix.product(x),
        QuantMatrix::Ggml(_) | QuantMatrix::FourBit(_) | QuantMatrix::Int8(_) => None,
    }
}

fn by_pieces(matrix: &QuantMatrix, x: Tensor<2>) -> Tensor<2> {
    let (device, dtype) = (x.device(), x.dtype());
    let mut products: Vec<Tensor<2>> = pieces(matrix)
        .map(|piece| {
            let weight = dequantised(matrix, piece, &device, dtype);
            super::multiply(x.clone(), weight.transpose(), None)
        })
        .collect();
    match products.len() {
        1 => products.remove(0),
        _ => Tensor::cat(products, 1),
    }
}

/// Texts that may go through [`apply_quantised`] together.
pub(super) fn quantised_rows_alike(matrix: &QuantMatrix) -> RowsAlike {
    if let QuantMatrix::Packed(_) = matrix {
        return RowsAlike::ANY;
    }
    let of_pieces = pieces(matrix).map(|piece| kernels::quantised_rows_alike(matrix, piece.len()));
    of_pieces.flatten().fold(RowsAlike::ANY, RowsAlike::and)
}

/// Rows of a quantised matrix as floats, `[rows, d_input]`; no gradients are recorded for it.
fn dequantised(matrix: &QuantMatrix, rows: Range<usize>, device: &Device, dtype: DType) -> Tensor<2> {
    if let QuantMatrix::Packed(matrix) = matrix {
        return beside(matrix.dequantised(rows, dtype), device);
    }
    let shape = [rows.len(), matrix.shape()[1]];
    let mut values = vec![0.0; shape[0] * shape[1]];
    kernels::dequantise_rows(matrix, rows, &mut values);
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

/// Some rows of a quantised matrix as floats, `[rows.len(), d_input]`.
pub(super) fn pick_quantised(
    matrix: &QuantMatrix,
    rows: &[usize],
    device: &Device,
    dtype: DType,
) -> Tensor<2> {
    if let QuantMatrix::Packed(matrix) = matrix {
        return beside(matrix.picked(rows, dtype), device);
    }
    let width = matrix.shape()[1];
    let mut values = vec![0.0; rows.len() * width];
    for (values, &row) in values.chunks_exact_mut(width.max(1)).zip(rows) {
        matrix.dequantise_rows(row..row + 1, values);
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), width]), (device, dtype))
}

/// `tensor`, which records nothing, as `device` has its tensors.
fn beside(tensor: Tensor<2>, device: &Device) -> Tensor<2> {
    match device.is_autodiff() {
        true => Tensor::from_inner(tensor),
        false => tensor,
    }
}

/// The rows of a matrix, as they are floats at a time.
fn pieces(matrix: &QuantMatrix) -> impl Iterator<Item = Range<usize>> {
    let [rows, width] = matrix.shape();
    let piece = match matrix {
        QuantMatrix::Packed(_) => (PIECE_ON_GPU / width.max(1)).max(1),
        QuantMatrix::Ggml(_) | QuantMatrix::FourBit(_) | QuantMatrix::Int8(_) => PIECE,
    };
    (0..rows).step_by(piece).map(move |first| first..rows.min(first + piece))
}
