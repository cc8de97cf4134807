//! The decoder's matrices, quantised while they are read: memory never holds one as floats, but for a piece.

use std::collections::BTreeSet;
use std::fmt::Debug;

use burn::tensor::DType;

use super::convert::read_as;
use super::load::LoadReport;
use super::{StoredTensor, TensorSource, WeightsError};
use crate::error::Result;
use crate::llm::Llm;
use crate::nn::{self, Matrix};
use crate::quant::ggml::GgmlType;
use crate::quant::{Activations, GgmlMatrix, MatrixSite, Scheme};

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
    /// The format that was asked for, where the matrix has another one.
    pub fn other(&self) -> Option<GgmlType> {
        self.asked.filter(|asked| asked.name() != self.format)
    }
}

/// Values that are floats at a time.
const PIECE: usize = 1 << 22;

/// Takes the matrices of `llm` out of `source` and puts them quantised into their places, with what an adapter adds to them. What is missing or misshapen is left
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
    let (num_layers, device) = (llm.layers.len(), llm.device());
    for (site, matrix) in llm.matrices_mut() {
        let (key, Some(shape)) = (site.key(), shape_of(matrix, site)) else { continue };
        let Some(stored) = source.get(&key).filter(|stored| stored.shape == shape) else { continue };
        let choice = quantization.scheme.map(|scheme| scheme.choose(site, num_layers, shape[1]));
        let Some(choice) = choice else { continue };
        let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
        let branch = match source.adapter() {
            Some(adapter) => adapter.branch(&key, &shape, (&mut missing, &mut misshapen), &mut used)?,
            None => None,
        };
        if !(missing.is_empty() && misshapen.is_empty()) {
            continue;
        }
        let (blocks, finite) = match branch {
            Some(branch) => {
                let (merged, finite) = branch.merged(stored, &device)?;
                let merged = merged.try_into_vec_as::<f32>().map_err(|e| damaged(stored, &e))?;
                (nn::quantise(choice.format, &merged, shape[1]), finite)
            }
            None => quantise(stored, choice.format)?,
        };
        let quantised = GgmlMatrix::new(choice.format, shape, blocks)
            .map_err(|e| damaged(stored, &e))?
            .with_activations(quantization.activations);
        report.loaded += 1;
        if !finite {
            report.not_finite.push(key.clone());
        }
        report.quantised.push(QuantisedTensor {
            key: key.clone(),
            asked: Some(choice.asked),
            format: choice.format.name(),
            bytes: quantised.blocks().len(),
        });
        progress(stored.num_elements());
        *matrix = Matrix::Quantised(quantised.into());
        source.remove(&key);
        source.remove_branch(&used);
    }
    Ok(())
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
