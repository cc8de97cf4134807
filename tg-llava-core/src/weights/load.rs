use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};

use super::convert::read_as;
use super::{TensorSource, WeightsError, is_unused_key, reference_key};
use crate::config::ProjectorConfig;
use crate::error::{Error, Result};
use crate::model::TgLlava;

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
}

/// Fills `model` from `source`, every tensor converted to `dtype`, one at a time.
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
    progress: &mut dyn FnMut(usize),
) -> Result<(TgLlava, LoadReport)> {
    let config = model.config();
    let tied = config.llm.tie_word_embeddings;
    let plain_linear = config.multimodal.as_ref().is_some_and(|mm| mm.projector == ProjectorConfig::Linear);
    let mut filler = Filler {
        source,
        dtype,
        plain_linear,
        may_be_missing,
        progress,
        path: Vec::new(),
        containers: Vec::new(),
        used: BTreeSet::new(),
        missing: Vec::new(),
        misshapen: Vec::new(),
        error: None,
        report: LoadReport::default(),
    };
    let model = model.map(&mut filler);
    let Filler { used, missing, misshapen, error, mut report, .. } = filler;
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
    if missing.is_empty() && unknown.is_empty() && misshapen.is_empty() {
        return Ok((model, report));
    }
    Err(WeightsError::Mismatch { missing, unknown, misshapen }.into())
}

struct Filler<'a> {
    source: &'a TensorSource,
    dtype: DType,
    plain_linear: bool,
    may_be_missing: &'a dyn Fn(&str) -> bool,
    progress: &'a mut dyn FnMut(usize),
    path: Vec<String>,
    containers: Vec<String>,
    used: BTreeSet<String>,
    missing: Vec<String>,
    misshapen: Vec<String>,
    error: Option<Error>,
    report: LoadReport,
}

/// Whether the parameter that is visited is a linear layer's matrix: the one kind that is stored
/// transposed, `[d_output, d_input]`.
pub(super) fn is_linear_weight(path: &[String], containers: &[String]) -> bool {
    containers.last().is_some_and(|c| c == "Struct:Linear") && path.last().is_some_and(|n| n == "weight")
}

impl Filler<'_> {
    fn load<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Option<Tensor<D>> {
        let key = reference_key(&self.path.join("."), self.plain_linear);
        let Some(stored) = self.source.get(&key) else {
            if (self.may_be_missing)(&key) {
                self.report.initialised.push(key);
            } else {
                self.missing.push(key);
            }
            return None;
        };
        self.used.insert(key.clone());
        let transposed = is_linear_weight(&self.path, &self.containers);
        let mut wanted: Vec<usize> = param.lazy_shape().to_vec();
        if transposed {
            wanted.reverse();
        }
        if stored.shape != wanted {
            self.misshapen.push(format!(
                "{key}: {:?} in {}, {wanted:?} by config.json",
                stored.shape,
                stored.path.display()
            ));
            return None;
        }
        match read_as(stored, self.dtype) {
            Ok((data, finite)) => {
                if !finite {
                    self.report.not_finite.push(key);
                }
                self.report.loaded += 1;
                (self.progress)(stored.num_elements());
                let tensor = Tensor::<D>::from_data(data, (&param.lazy_device(), self.dtype));
                Some(if transposed { tensor.transpose() } else { tensor })
            }
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(name.to_owned());
        self.containers.push(container_type.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let id = param.id;
        match self.load(&param) {
            Some(tensor) => param.transform_for_load(tensor, id),
            None => param,
        }
    }
}
