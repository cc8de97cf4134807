//! The decoder's matrices, quantised while they are read: memory never holds one as floats, but for a piece.

use burn::tensor::DType;

use super::convert::read_as;
use super::load::LoadReport;
use super::{StoredTensor, TensorSource, WeightsError};
use crate::error::{Error, Result};
use crate::llm::Llm;
use crate::nn::{self, Matrix};
use crate::quant::ggml::GgmlType;
use crate::quant::{Activations, Choice, GgmlMatrix, MatrixSite, Scheme, WrongLength};

/// How a decoder's matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantization {
    /// The formats of matrices that the files hold as floats; none where these stay so. What is quantised already stays as it is.
    pub scheme: Option<Scheme>,
    /// What meets quantised matrices in products.
    pub activations: Activations,
}

/// A matrix that is held quantised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantisedTensor {
    /// Key.
    pub key: String,
    /// The format that was asked for, where it was quantised here.
    pub asked: Option<GgmlType>,
    /// Name of the format that it has.
    pub format: &'static str,
    /// Bytes in memory.
    pub bytes: usize,
}

impl QuantisedTensor {
    fn of(site: MatrixSite, choice: Option<Choice>, blocks: &GgmlMatrix) -> Self {
        Self {
            key: site.key(),
            asked: choice.map(|choice| choice.asked),
            format: blocks.format().name(),
            bytes: blocks.blocks().len(),
        }
    }

    /// The format that was asked for, where the matrix has another one.
    pub fn other(&self) -> Option<GgmlType> {
        self.asked.filter(|asked| asked.name() != self.format)
    }
}

/// Values that are floats at a time.
const PIECE: usize = 1 << 20;

/// Takes the matrices of `llm` out of `source` and puts them quantised into their places. What is missing or misshapen is left
/// to those who fill the rest.
///
/// # Errors
/// [`WeightsError`] where a file cannot give a tensor.
pub(super) fn fill_quantised(
    llm: &mut Llm,
    source: &mut TensorSource,
    quantization: Quantization,
    report: &mut LoadReport,
    progress: &mut dyn FnMut(usize),
) -> Result<()> {
    let num_layers = llm.layers.len();
    for (site, matrix) in llm.matrices_mut() {
        let (key, Some(shape)) = (site.key(), shape_of(matrix, site)) else { continue };
        let Some(stored) = source.get(&key).filter(|stored| stored.shape == shape) else { continue };
        let choice = quantization.scheme.map(|scheme| scheme.choose(site, num_layers, shape[1]));
        let Some(choice) = choice else { continue };
        let (blocks, finite) = quantise(stored, choice.format)?;
        let wrong = |e: WrongLength| damaged(stored, e);
        let blocks = GgmlMatrix::new(choice.format, shape, blocks).map_err(wrong)?;
        report.loaded += 1;
        if !finite {
            report.not_finite.push(key.clone());
        }
        report.quantised.push(QuantisedTensor::of(site, Some(choice), &blocks));
        progress(stored.num_elements());
        *matrix = Matrix::Quantised(blocks.with_activations(quantization.activations).into());
        source.remove(&key);
    }
    Ok(())
}

/// Quantises the matrices of a decoder that is in memory.
pub fn quantise_decoder(llm: &mut Llm, scheme: Scheme, activations: Activations) -> Vec<QuantisedTensor> {
    let num_layers = llm.layers.len();
    let mut all = Vec::new();
    for (site, matrix) in llm.matrices_mut() {
        let (Some(shape), Some(param)) = (shape_of(matrix, site), matrix.float()) else { continue };
        let choice = scheme.choose(site, num_layers, shape[1]);
        let rows = if site == MatrixSite::Embedding { param.val() } else { param.val().transpose() };
        let Ok(values) = rows.into_data().convert::<f32>().try_into_vec::<f32>() else { continue };
        let blocks = nn::quantise(choice.format, &values, shape[1]);
        let Ok(blocks) = GgmlMatrix::new(choice.format, shape, blocks) else { continue };
        all.push(QuantisedTensor::of(site, Some(choice), &blocks));
        *matrix = Matrix::Quantised(blocks.with_activations(activations).into());
    }
    all
}

/// `[d_output, d_input]`, as files have it, of a matrix of floats.
fn shape_of(matrix: &Matrix, site: MatrixSite) -> Option<[usize; 2]> {
    let [rows, columns] = matrix.float()?.lazy_shape().dims();
    Some(if site == MatrixSite::Embedding { [rows, columns] } else { [columns, rows] })
}

/// The blocks of a matrix of floats, and whether all its values are finite.
fn quantise(stored: &StoredTensor, format: GgmlType) -> Result<(Vec<u8>, bool)> {
    let [rows, columns] = [stored.shape[0], stored.shape[1]];
    let at_once = (PIECE / columns.max(1)).clamp(1, rows.max(1));
    let (mut blocks, mut all_finite) = (Vec::with_capacity(rows * format.row_bytes(columns)), true);
    for first in (0..rows).step_by(at_once) {
        let (values, finite) = read_as(&stored.rows(first, at_once.min(rows - first)), DType::F32)?;
        let values = values.try_into_vec::<f32>().map_err(|e| damaged(stored, format!("{e:?}")))?;
        blocks.extend(nn::quantise(format, &values, columns));
        all_finite &= finite;
    }
    Ok((blocks, all_finite))
}

fn damaged(stored: &StoredTensor, reason: impl std::fmt::Display) -> Error {
    let reason = format!("{}: {reason}", stored.key);
    WeightsError::Damaged { path: stored.path.to_path_buf(), reason }.into()
}
