//! The decoder's matrices, quantised while they are read: memory holds a piece of one as floats, and one whole where its file
//! cannot be read by pieces.

use std::collections::BTreeSet;

use burn::tensor::{DType, Device, TensorData};

use super::adapter::Branch;
use super::convert::read_as;
use super::load::LoadReport;
use super::{StoredDType, StoredTensor, TensorSource, WeightsError};
use crate::error::Result;
use crate::llm::Llm;
use crate::nn::{self, Matrix};
use crate::quant::bnb::{AbsmaxStorage, FourBit};
use crate::quant::ggml::GgmlType;
use crate::quant::{Activations, FourBitMatrix, GgmlMatrix, MatrixSite, PackedMatrix, QuantMatrix, Scheme};

/// How a decoder's matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantization {
    /// The formats of matrices that the files hold as floats; none where these stay so. Blocks of GGML in the files stay as they
    /// are; matrices of bitsandbytes, and those that an adapter is added to, are taken as floats.
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
const PIECE: usize = 1 << 20;

/// Takes the matrices of `llm` out of `source` and puts them quantised into their places: blocks of a file as they are, floats as
/// `quantization` says. An adapter of the source is added before, in f32. What is missing or misshapen is left to those who fill the
/// rest.
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
    let (num_layers, device) = (llm.layers.len(), llm.norm.gamma.lazy_device());
    let packed = PackedMatrix::may_lie_on(&device);
    // A table of the vocabulary may be in pieces: its rows, and how many of them have been read.
    let tables = std::iter::once(&llm.embed_tokens).chain(&llm.embed_tokens_more);
    let (tables, mut first) = (tables.map(|table| table.shape()[0]).sum::<usize>(), 0);
    for (site, matrix) in llm.matrices_mut() {
        let (key, Some(shape)) = (site.key(), shape_of(matrix, site)) else { continue };
        let rows = if matches!(site, MatrixSite::Block { .. }) { shape[0] } else { tables };
        let whole = source.get(&key).filter(|whole| whole.shape == [rows, shape[1]]);
        let Some(whole) = whole else { continue };
        let cut = (shape[0] < rows).then(|| whole.rows(first, shape[0]));
        let stored = cut.as_ref().unwrap_or(whole);
        let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
        let branch = match source.adapter() {
            Some(adapter) => adapter.branch(&key, &shape, (&mut missing, &mut misshapen), &mut used)?,
            None => None,
        };
        let kept = match stored.dtype {
            // Floats in a file of blocks are floats, but for the kernels of the CPU, which read them as they are.
            StoredDType::Ggml(format) if used.is_empty() && !(packed && format.is_float()) => Some(format),
            _ => None,
        };
        let choice = quantization.scheme.filter(|_| kept.is_none());
        let choice = choice.map(|scheme| scheme.choose(site, num_layers, shape[1]));
        let Some(format) = kept.or(choice.map(|choice| choice.format)) else { continue };
        if !(missing.is_empty() && misshapen.is_empty()) {
            continue;
        }
        let (blocks, finite) = match branch {
            _ if kept.is_some() => (stored.bytes()?, true),
            None => quantise(stored, format)?,
            Some(branch) => {
                let (merged, finite) = branch.merged(stored, &device)?;
                (nn::quantise(format, &floats(stored, merged.into_data())?, shape[1]), finite)
            }
        };
        let quantised = GgmlMatrix::new(format, shape, blocks).map_err(|e| WeightsError::Damaged {
            path: stored.path.to_path_buf(),
            reason: format!("{key}: {e}"),
        })?;
        let quantised = QuantMatrix::beside(quantised.with_activations(quantization.activations), &device);
        if !finite {
            report.not_finite.push(key.clone());
        }
        let bytes = quantised.num_bytes();
        match report.quantised.last_mut().filter(|_| first > 0) {
            Some(table) => table.bytes += bytes,
            None => {
                report.loaded += 1;
                let asked = choice.map(|choice| choice.asked);
                let key = key.clone();
                report.quantised.push(QuantisedTensor { key, asked, format: format.name(), bytes });
            }
        }
        progress(stored.num_elements());
        *matrix = Matrix::Quantised(quantised);
        first += shape[0];
        if first == rows {
            source.remove(&key, &used);
            first = 0;
        }
    }
    Ok(())
}

/// Quantises the matrices of a decoder that is in memory.
pub fn quantise_decoder(llm: &mut Llm, scheme: Scheme, activations: Activations) -> Vec<QuantisedTensor> {
    let (num_layers, device) = (llm.layers.len(), llm.device());
    let mut all = Vec::new();
    for (site, matrix) in llm.matrices_mut() {
        let (Some(shape), Some(param)) = (shape_of(matrix, site), matrix.float()) else { continue };
        let choice = scheme.choose(site, num_layers, shape[1]);
        let rows = if site == MatrixSite::Embedding { param.val() } else { param.val().transpose() };
        let Ok(values) = rows.into_data().try_into_vec_as::<f32>() else { continue };
        let blocks = nn::quantise(choice.format, &values, shape[1]);
        let Ok(blocks) = GgmlMatrix::new(choice.format, shape, blocks) else { continue };
        let quantised = QuantMatrix::beside(blocks.with_activations(activations), &device);
        let (key, bytes) = (site.key(), quantised.num_bytes());
        all.push(QuantisedTensor { key, asked: Some(choice.asked), format: choice.format.name(), bytes });
        *matrix = Matrix::Quantised(quantised);
    }
    all
}

/// Takes the matrices of the decoder's blocks out of `source` and puts them into their places in bitsandbytes' NF4 with double
/// quantisation, for whoever trains an adapter over them: what is in four bits in the files as it is, one matrix as floats at a time
/// otherwise. What is missing or misshapen is left to [`apply`](super::apply).
///
/// # Errors
/// [`WeightsError`] where a file cannot give a tensor.
pub fn fill_nf4(
    llm: &mut Llm,
    source: &mut TensorSource,
    progress: &mut dyn FnMut(usize),
) -> Result<LoadReport> {
    let mut report = LoadReport::default();
    let device = llm.norm.gamma.lazy_device();
    for (site, matrix) in llm.matrices_mut() {
        let (key, Some(shape)) = (site.key(), shape_of(matrix, site)) else { continue };
        let block = matches!(site, MatrixSite::Block { .. });
        let stored = source.get(&key).filter(|stored| block && stored.shape == shape);
        let Some(stored) = stored else { continue };
        let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
        let branch = match source.adapter() {
            Some(adapter) => adapter.branch(&key, &shape, (&mut missing, &mut misshapen), &mut used)?,
            None => None,
        };
        if !(missing.is_empty() && misshapen.is_empty()) {
            continue;
        }
        let (tensor, finite) = match (stored.four_bit()?, branch) {
            (Some(tensor), None) => (tensor, true),
            (_, branch) => nf4(stored, branch, &device)?,
        };
        let (path, elements) = (stored.path.clone(), stored.num_elements());
        let quantised = FourBitMatrix::new(tensor).ok_or_else(|| WeightsError::Damaged {
            path: path.to_path_buf(),
            reason: format!("{key}: no matrix"),
        })?;
        report.loaded += 1;
        if !finite {
            report.not_finite.push(key.clone());
        }
        let (format, bytes) = (quantised.tensor().state().kind.name(), quantised.tensor().byte_len());
        report.quantised.push(QuantisedTensor { key: key.clone(), asked: None, format, bytes });
        progress(elements);
        *matrix = Matrix::Quantised(quantised.into());
        source.remove(&key, &used);
    }
    Ok(report)
}

/// A matrix of floats in NF4, with what `branch` adds to it, and whether all its values are finite.
pub(super) fn nf4(
    stored: &StoredTensor,
    branch: Option<Branch<'_>>,
    device: &Device,
) -> Result<(FourBit, bool)> {
    let (values, finite) = match branch {
        Some(branch) => {
            let (merged, finite) = branch.merged(stored, device)?;
            (merged.into_data(), finite)
        }
        None => read_as(stored, DType::F32)?,
    };
    let values = floats(stored, values)?;
    Ok((FourBit::quantise_nf4(&values, &stored.shape, "float32", AbsmaxStorage::Double), finite))
}

fn floats(stored: &StoredTensor, values: TensorData) -> Result<Vec<f32>> {
    values.try_into_vec::<f32>().map_err(|e| {
        let reason = format!("{}: {e:?}", stored.key);
        WeightsError::Damaged { path: stored.path.to_path_buf(), reason }.into()
    })
}

/// `[d_output, d_input]`, as files have it, of a matrix of floats.
fn shape_of(matrix: &Matrix, site: MatrixSite) -> Option<[usize; 2]> {
    let [rows, columns] = matrix.float()?.lazy_shape().dims();
    Some(if site == MatrixSite::Embedding { [rows, columns] } else { [columns, rows] })
}

/// Rows of a matrix that are floats at a time: all, where each piece would read the whole matrix again.
fn rows_at_once(stored: &StoredTensor) -> usize {
    let [rows, columns] = [stored.shape[0], stored.shape[1]];
    let most = if stored.is_cut_cheaply() { PIECE / columns.max(1) } else { rows };
    most.clamp(1, rows.max(1))
}

/// The blocks of a matrix of floats, and whether all its values are finite.
fn quantise(stored: &StoredTensor, format: GgmlType) -> Result<(Vec<u8>, bool)> {
    let [rows, columns] = [stored.shape[0], stored.shape[1]];
    let at_once = rows_at_once(stored);
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
        assert_eq!((rows_at_once(&plain), rows_at_once(&within)), (1024, 2048));
        let blocks = |stored| quantise(stored, GgmlType::Q8_0).unwrap();
        assert!(blocks(&plain) == blocks(&within));
    }
}
