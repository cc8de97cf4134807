//! The decoder's matrices, quantised while they are read: memory never holds one as floats, but for a piece.

use std::collections::BTreeSet;
use std::fmt::Debug;

use burn::tensor::DType;

use super::convert::read_as;
use super::load::LoadReport;
use super::{StoredDType, StoredTensor, TensorSource, WeightsError, bnb};
use crate::error::Result;
use crate::llm::Llm;
use crate::nn::{self, Matrix};
use crate::quant::ggml::GgmlType;
use crate::quant::{Activations, Choice, GgmlMatrix, MatrixSite, QuantMatrix, Scheme};

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
    fn of(site: MatrixSite, choice: Option<Choice>, matrix: &QuantMatrix) -> Self {
        Self {
            key: site.key(),
            asked: choice.map(|choice| choice.asked),
            format: matrix.format_name(),
            bytes: matrix.num_bytes(),
        }
    }

    /// The format that was asked for, where the matrix has another one.
    pub fn other(&self) -> Option<GgmlType> {
        self.asked.filter(|asked| asked.name() != self.format)
    }
}

/// Values that are floats at a time.
const PIECE: usize = 1 << 20;

/// Takes the matrices of `llm` out of `source` and puts them quantised into their places: those that are quantised in the file as
/// they are, and floats by the scheme, with what an adapter adds to them. What stays floats, is missing or misshapen is left to
/// those who fill the rest.
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
    let (num_layers, device) = (llm.layers.len(), llm.device());
    for (site, matrix) in llm.matrices_mut() {
        let (key, Some(shape)) = (site.key(), shape_of(matrix, site)) else { continue };
        let Some(stored) = source.get(&key).filter(|stored| stored.shape == shape) else { continue };
        let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
        let branch = match source.adapter() {
            Some(adapter) => adapter.branch(&key, &shape, (&mut missing, &mut misshapen), &mut used)?,
            None => None,
        };
        if !(missing.is_empty() && misshapen.is_empty()) {
            continue;
        }
        let choice = quantization.scheme.map(|scheme| scheme.choose(site, num_layers, shape[1]));
        let (held, finite) = match (branch, choice) {
            // An adapter is never merged into fewer bits than floats have, unless these are what is asked for.
            (Some(_), None) => continue,
            (Some(branch), Some(choice)) => {
                let (merged, finite) = branch.merged(stored, &device)?;
                let merged = merged.try_into_vec_as::<f32>().map_err(|e| damaged(stored, &e))?;
                (
                    blocks(stored, choice.format, shape, nn::quantise(choice.format, &merged, shape[1]))?,
                    finite,
                )
            }
            (None, choice) => match (stored.dtype, choice) {
                (StoredDType::Ggml(format), _) if !format.is_float() => {
                    (blocks(stored, format, shape, stored.bytes()?)?, true)
                }
                (StoredDType::FourBit(_) | StoredDType::Int8, _) => (bnb::matrix(stored, shape)?, true),
                (_, None) => continue,
                (_, Some(choice)) => {
                    let (bytes, finite) = quantise(stored, choice.format)?;
                    (blocks(stored, choice.format, shape, bytes)?, finite)
                }
            },
        };
        report.loaded += 1;
        if !finite {
            report.not_finite.push(key.clone());
        }
        report.quantised.push(QuantisedTensor::of(site, choice, &held));
        progress(stored.num_elements());
        *matrix = Matrix::Quantised(held.with_activations(quantization.activations));
        source.remove(&key);
        source.remove_branch(&used);
    }
    Ok(())
}

fn blocks(stored: &StoredTensor, format: GgmlType, shape: [usize; 2], bytes: Vec<u8>) -> Result<QuantMatrix> {
    Ok(GgmlMatrix::new(format, shape, bytes).map_err(|e| damaged(stored, &e))?.into())
}

/// Quantises the matrices of a decoder that is in memory.
pub fn quantise_decoder(llm: &mut Llm, scheme: Scheme, activations: Activations) -> Vec<QuantisedTensor> {
    let num_layers = llm.layers.len();
    let mut all = Vec::new();
    for (site, matrix) in llm.matrices_mut() {
        let (Some(shape), Some(param)) = (shape_of(matrix, site), matrix.float()) else { continue };
        let choice = scheme.choose(site, num_layers, shape[1]);
        let rows = if site == MatrixSite::Embedding { param.val() } else { param.val().transpose() };
        let Ok(values) = rows.into_data().try_into_vec_as::<f32>() else { continue };
        let blocks = nn::quantise(choice.format, &values, shape[1]);
        let Ok(blocks) = GgmlMatrix::new(choice.format, shape, blocks) else { continue };
        let held = QuantMatrix::from(blocks.with_activations(activations));
        all.push(QuantisedTensor::of(site, Some(choice), &held));
        *matrix = Matrix::Quantised(held);
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
        let values = values.try_into_vec::<f32>().map_err(|e| damaged(stored, &e))?;
        blocks.extend(nn::quantise(format, &values, columns));
        all_finite &= finite;
    }
    Ok((blocks, all_finite))
}

fn damaged(stored: &StoredTensor, error: &dyn Debug) -> WeightsError {
    WeightsError::Damaged { path: stored.path.to_path_buf(), reason: format!("{}: {error:?}", stored.key) }
}
