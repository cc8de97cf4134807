use std::collections::{BTreeMap, BTreeSet};

use burn::module::Param;
use burn::tensor::{DType, Device, Shape, Tensor};

use super::convert::read_as;
use super::names::vocabulary_piece;
use super::{
    ParameterMapper, ParameterPath, QuantisedTensor, StoredTensor, TensorSource, WeightsError, is_unused_key,
    map_parameters, reference_key,
};
use crate::error::{Error, Result};
use crate::model::TgLlava;
use crate::nn::cast_to;

/// Hears the number of values that each tensor brought; its error ends the loading.
pub type Progress<'a> = dyn FnMut(usize) -> Result<()> + 'a;

/// What loading found besides the weights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Number of parameters (tensors) that were filled.
    pub loaded: usize,
    /// Keys that were skipped because the model never uses them.
    pub unused: Vec<String>,
    /// Keys that hold NaN or infinite values.
    pub not_finite: Vec<String>,
    /// Keys that were missing and left at their initial values, where that was asked for.
    pub initialised: Vec<String>,
    /// Matrices that are held quantised.
    pub quantised: Vec<QuantisedTensor>,
    /// Keys of tensors that the files hold quantised and that are held as floats, by the format in the files.
    pub dequantised: BTreeMap<String, Vec<String>>,
}

impl LoadReport {
    /// Both.
    pub fn and(mut self, other: Self) -> Self {
        self.loaded += other.loaded;
        self.unused.extend(other.unused);
        self.not_finite.extend(other.not_finite);
        self.initialised.extend(other.initialised);
        self.quantised.extend(other.quantised);
        for (format, keys) in other.dequantised {
            self.dequantised.entry(format).or_default().extend(keys);
        }
        self
    }
}

/// Fills `model` from `source`, every tensor converted to `dtype`, one at a time. An adapter of the source is added to the matrices
/// that it lies over, in f32, before they are converted.
///
/// Keys for which `may_be_missing` is true keep their initial values; every other key must be there with
/// the right shape, and nothing else may be there but [`is_unused_key`]s.
///
/// # Errors
/// [`WeightsError::Mismatch`] with all missing, unknown and misshapen keys at once; other [`WeightsError`]s
/// for unreadable tensors.
pub fn apply(
    model: TgLlava,
    source: &TensorSource,
    dtype: DType,
    may_be_missing: &dyn Fn(&str) -> bool,
    progress: &mut Progress<'_>,
) -> Result<(TgLlava, LoadReport)> {
    let config = model.config();
    let tied = config.llm.tie_word_embeddings;
    let plain_linear = config.has_plain_linear_projector();
    let piece_sizes = config.llm.piece_sizes();
    let mut filler = Filler {
        source,
        dtype,
        plain_linear,
        piece_sizes,
        may_be_missing,
        progress,
        used: BTreeSet::new(),
        used_matrices: BTreeSet::new(),
        missing: Vec::new(),
        misshapen: Vec::new(),
        error: None,
        report: LoadReport::default(),
    };
    let model = map_parameters(model, &mut filler);
    let Filler { used, used_matrices, missing, misshapen, error, mut report, .. } = filler;
    if let Some(error) = error {
        return Err(error);
    }
    let mut unknown = Vec::new();
    for (key, tensor) in source.iter().filter(|(key, _)| !used.contains(*key)) {
        // A tied head is stored by some tools, as a copy of the embedding.
        if is_unused_key(key) || (tied && key == "lm_head.weight") {
            report.unused.push(key.to_owned());
        } else {
            unknown.push(format!("{key} (in {})", tensor.path.display()));
        }
    }
    // Those of layers that are missing or misshapen are not looked at.
    if missing.is_empty() && misshapen.is_empty() {
        unknown.extend(source.adapter().into_iter().flat_map(|adapter| adapter.unused(&used_matrices)));
    }
    if missing.is_empty() && unknown.is_empty() && misshapen.is_empty() {
        return Ok((model, report));
    }
    Err(WeightsError::Mismatch { missing, unknown, misshapen }.into())
}

struct Filler<'a> {
    source: &'a TensorSource,
    dtype: DType,
    plain_linear: bool,
    /// Of the vocabulary.
    piece_sizes: Vec<usize>,
    may_be_missing: &'a dyn Fn(&str) -> bool,
    progress: &'a mut Progress<'a>,
    used: BTreeSet<String>,
    /// Of the adapter.
    used_matrices: BTreeSet<String>,
    missing: Vec<String>,
    misshapen: Vec<String>,
    error: Option<Error>,
    report: LoadReport,
}

impl Filler<'_> {
    fn load<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) -> Option<Tensor<D>> {
        let path_name = path.dotted();
        let key = reference_key(&path_name, self.plain_linear);
        // The table it is a piece of, where it is: what the file holds is the whole.
        let piece = vocabulary_piece(&path_name).map(|(_, piece)| piece);
        let piece = piece.filter(|_| self.piece_sizes.len() > 1);
        let Some(stored) = self.source.get(&key) else {
            if piece.is_some_and(|piece| piece > 0) {
                // Said at the first.
            } else if (self.may_be_missing)(&key) {
                self.report.initialised.push(key);
            } else {
                self.missing.push(key);
            }
            return None;
        };
        self.used.insert(key.clone());
        let transposed = path.is_linear_weight();
        let mut wanted: Vec<usize> = param.lazy_shape().to_vec();
        if transposed {
            wanted.reverse();
        }
        if piece.is_some() {
            wanted[0] = self.piece_sizes.iter().sum();
        }
        if stored.shape != wanted {
            if piece.is_some_and(|piece| piece > 0) {
                return None;
            }
            self.misshapen.push(format!(
                "{key}: {:?} in {}, {wanted:?} by config.json",
                stored.shape,
                stored.path.display()
            ));
            return None;
        }
        let cut = piece.map(|piece| {
            let first = self.piece_sizes[..piece].iter().sum();
            stored.rows(first, self.piece_sizes[piece])
        });
        let stored = cut.as_ref().unwrap_or(stored);
        match self.read::<D>(&key, stored, &param.lazy_device()) {
            Ok((tensor, finite)) => {
                if stored.dtype.is_quantised() && piece.is_none_or(|piece| piece == 0) {
                    let of_format = self.report.dequantised.entry(stored.dtype_name.clone());
                    of_format.or_default().push(key.clone());
                }
                if !finite {
                    self.report.not_finite.push(key);
                }
                self.report.loaded += usize::from(piece.is_none_or(|piece| piece == 0));
                if let Err(error) = (self.progress)(stored.num_elements()) {
                    self.error.get_or_insert(error);
                }
                Some(if transposed { tensor.transpose() } else { tensor })
            }
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }
}

impl Filler<'_> {
    /// The values of `stored` with what an adapter adds, and whether they are finite.
    fn read<const D: usize>(
        &mut self,
        key: &str,
        stored: &StoredTensor,
        device: &Device,
    ) -> Result<(Tensor<D>, bool)> {
        let branch = match self.source.adapter() {
            Some(adapter) => {
                let wrong = (&mut self.missing, &mut self.misshapen);
                adapter.branch(key, &stored.shape, wrong, &mut self.used_matrices)?
            }
            None => None,
        };
        if let Some(branch) = branch {
            let (merged, finite) = branch.merged(stored, device)?;
            return Ok((cast_to(merged, self.dtype).reshape(Shape::from(stored.shape.clone())), finite));
        }
        let (data, finite) = read_as(stored, self.dtype)?;
        Ok((Tensor::from_data(data, (device, self.dtype)), finite))
    }
}

impl ParameterMapper for Filler<'_> {
    fn map<const D: usize>(&mut self, path: &ParameterPath, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let id = param.id;
        match self.load(path, &param) {
            Some(tensor) => param.transform_for_load(tensor, id),
            None => param,
        }
    }
}
