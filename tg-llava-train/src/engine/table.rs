//! Every parameter of a model, with what the optimizer needs to know of it.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::Tensor;
use tg_llava_core::model::TgLlava;
use tg_llava_core::weights::{ParameterPath, ParameterVisitor, reference_key, visit_parameters};

use super::parts::TrainedParts;
use crate::config::Component;
use crate::optim::{DecayRule, decays};

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// The reference's key.
    pub key: String,
    /// The component that it belongs to.
    pub component: Component,
    /// Extents in the module.
    pub shape: Vec<usize>,
    /// Whether weight decay applies to it.
    pub decays: bool,
    /// Whether it learns.
    pub trains: bool,
}

impl ParameterInfo {
    /// Number of values.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The parameters of a model by path.
#[derive(Debug, Clone)]
pub struct ParameterTable {
    by_path: BTreeMap<String, ParameterInfo>,
}

impl ParameterTable {
    /// Lists the parameters of `model`; nothing is allocated for it.
    pub fn new(model: &TgLlava, parts: TrainedParts, rule: DecayRule) -> Self {
        let with_adapter = model.llm.has_adapter();
        let mut lister = Lister { model, parts, with_adapter, rule, by_path: BTreeMap::new() };
        visit_parameters(model, &mut lister);
        Self { by_path: lister.by_path }
    }

    /// The parameter at `path`.
    pub fn get(&self, path: &str) -> Option<&ParameterInfo> {
        self.by_path.get(path)
    }

    /// All parameters by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ParameterInfo)> {
        self.by_path.iter().map(|(path, info)| (path.as_str(), info))
    }

    /// Values of `component`: all, and those that learn.
    pub fn counts(&self, component: Component) -> (usize, usize) {
        let of = self.by_path.values().filter(|info| info.component == component);
        of.fold((0, 0), |(all, learn), info| {
            (all + info.count(), learn + if info.trains { info.count() } else { 0 })
        })
    }

    /// Values that learn.
    pub fn trainable(&self) -> usize {
        self.by_path.values().filter(|info| info.trains).map(ParameterInfo::count).sum()
    }

    /// All values.
    pub fn total(&self) -> usize {
        self.by_path.values().map(ParameterInfo::count).sum()
    }
}

struct Lister<'a> {
    model: &'a TgLlava,
    parts: TrainedParts,
    with_adapter: bool,
    rule: DecayRule,
    by_path: BTreeMap<String, ParameterInfo>,
}

impl ParameterVisitor for Lister<'_> {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        let path = path.dotted();
        let Some(component) = Component::of_path(&path) else { return };
        let config = self.model.config();
        let key = reference_key(&path, config.has_plain_linear_projector());
        let info = ParameterInfo {
            decays: decays(&key, self.rule, config.llm.family),
            key,
            component,
            shape: param.lazy_shape().to_vec(),
            trains: self.parts.learns(&path, self.with_adapter),
        };
        self.by_path.insert(path, info);
    }
}
