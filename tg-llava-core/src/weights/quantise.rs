//! The decoder's matrices, held in fewer bits.

use std::collections::BTreeSet;

use super::load::{LoadReport, Progress};
use super::{Encoding, StoredDType, TensorSource};
use crate::error::{Error, Result};
use crate::llm::Llm;
use crate::nn::Matrix;
use crate::quant::{Activations, MatrixSite, PackedMatrix};

/// How a decoder's matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantization {
    /// What matrices become that the files hold otherwise. Those that they hold in the formats of this encoding stay as they are, blocks
    /// of GGML with [`Encoding::Floats`] as well; those that an adapter is added to are taken as floats first.
    pub encoding: Encoding,
    /// What meets blocks of GGML in products on the CPU.
    pub activations: Activations,
}

/// A matrix that is held quantised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantisedTensor {
    /// Key.
    pub key: String,
    /// Name of the format that was asked for; none where none was.
    pub asked: Option<&'static str>,
    /// Name of the format that it has.
    pub format: &'static str,
    /// Bytes in memory.
    pub bytes: usize,
}

impl QuantisedTensor {
    /// The format that was asked for, where the matrix has another one.
    pub fn other(&self) -> Option<&'static str> {
        self.asked.filter(|asked| *asked != self.format)
    }
}

/// Takes the matrices of `llm` out of `source` and puts them into their places as `quantization` says. An adapter of the source is
/// added before, in f32. What stays floats, is missing or misshapen is left to [`apply`](super::apply).
///
/// # Errors
/// [`WeightsError`](super::WeightsError) where a file cannot give a tensor.
pub fn fill_quantised(
    llm: &mut Llm,
    source: &mut TensorSource,
    quantization: Quantization,
    progress: &mut Progress<'_>,
) -> Result<LoadReport> {
    let Quantization { encoding, activations } = quantization;
    let (num_layers, device) = (llm.layers.len(), llm.norm.gamma.lazy_device());
    let mut report = LoadReport::default();
    let packed = PackedMatrix::may_lie_on(&device);
    // Floats in a file of blocks are floats, but for the kernels of the CPU, which read them as they are.
    let keeps = |site, stored| {
        let floats = matches!(stored, StoredDType::Ggml(format) if format.is_float());
        encoding.keeps(site, stored) && !(packed && floats)
    };
    // A table of the vocabulary may be in pieces: its rows, and how many of them have been read.
    let tables = std::iter::once(&llm.embed_tokens).chain(&llm.embed_tokens_more);
    let (tables, mut first) = (tables.map(|table| table.shape()[0]).sum::<usize>(), 0);
    for (site, matrix) in llm.matrices_mut() {
        let (key, shape) = (site.key(), shape_of(matrix, site));
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
        if !(missing.is_empty() && misshapen.is_empty()) {
            continue;
        }
        let choice = encoding.choose(site, num_layers, shape[1]);
        let as_it_is = if branch.is_none() && keeps(site, stored.dtype) { stored.quantised()? } else { None };
        let (quantised, finite) = match (as_it_is, choice) {
            (Some(matrix), _) => (matrix, true),
            (None, Some(choice)) => choice.format.read(stored, branch, &device)?,
            (None, None) => continue,
        };
        let quantised = quantised.with_activations(activations).beside(&device);
        if !finite && report.not_finite.last() != Some(&key) {
            report.not_finite.push(key.clone());
        }
        let (format, bytes) = (quantised.format_name(), quantised.num_bytes());
        match report.quantised.last_mut().filter(|_| first > 0) {
            Some(table) => table.bytes += bytes,
            None => {
                report.loaded += 1;
                let (key, asked) = (key.clone(), choice.map(|choice| choice.asked));
                report.quantised.push(QuantisedTensor { key, asked, format, bytes });
            }
        }
        progress(stored.num_elements())?;
        *matrix = Matrix::Quantised(quantised);
        first += shape[0];
        if first == rows {
            source.remove(&key, &used);
            first = 0;
        }
    }
    Ok(report)
}

/// Quantises the matrices of a decoder that is in memory; those that are quantised already stay as they are, and are listed so.
///
/// # Errors
/// [`Error::Request`] where the device cannot give the values of a matrix.
pub fn quantise_decoder(llm: &mut Llm, quantization: Quantization) -> Result<Vec<QuantisedTensor>> {
    let (num_layers, device) = (llm.layers.len(), llm.device());
    let mut all = Vec::new();
    for (site, matrix) in llm.matrices_mut() {
        let (key, shape) = (site.key(), shape_of(matrix, site));
        let Some(choice) = quantization.encoding.choose(site, num_layers, shape[1]) else { continue };
        let held = match matrix {
            Matrix::Quantised(held) => held.clone(),
            Matrix::Float(param) => {
                let rows = if site == MatrixSite::Embedding { param.val() } else { param.val().transpose() };
                let values = rows.into_data().try_into_vec_as::<f32>();
                let values =
                    values.map_err(|error| Error::Request(format!("{key} could not be read: {error:?}")))?;
                let quantised = choice.format.quantise(&values, shape, "float32");
                quantised.with_activations(quantization.activations).beside(&device)
            }
        };
        let (asked, format, bytes) = (Some(choice.asked), held.format_name(), held.num_bytes());
        all.push(QuantisedTensor { key, asked, format, bytes });
        *matrix = Matrix::Quantised(held);
    }
    Ok(all)
}

/// `[d_output, d_input]`, as files have it.
fn shape_of(matrix: &Matrix, site: MatrixSite) -> [usize; 2] {
    match matrix {
        Matrix::Quantised(matrix) => matrix.shape(),
        Matrix::Float(param) => {
            let [rows, columns] = param.lazy_shape().dims();
            if site == MatrixSite::Embedding { [rows, columns] } else { [columns, rows] }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Scheme;

    #[test]
    fn a_matrix_that_is_quantised_already_is_listed_in_the_format_that_it_has() {
        let mut llm = crate::config::tiny(30).init(&burn::tensor::Device::flex()).unwrap().llm;
        let mut quantise = |encoding| {
            let quantization = Quantization { encoding, ..Quantization::default() };
            quantise_decoder(&mut llm, quantization).unwrap()
        };
        let first = quantise(Encoding::Int8);
        assert!(first.iter().all(|matrix| matrix.format == "int8" && matrix.other().is_none()));
        let again = quantise(Encoding::Ggml(Scheme::Q8_0));
        assert_eq!(again.len(), first.len() + 1, "the embedding, which is the head, as well");
        let others: Vec<_> = again.iter().filter(|matrix| matrix.other().is_some()).collect();
        assert_eq!(others.len(), first.len());
        assert!(
            others.iter().all(|matrix| (matrix.format, matrix.asked) == ("int8", Some("Q8_0"))),
            "{others:?}"
        );
    }
}
