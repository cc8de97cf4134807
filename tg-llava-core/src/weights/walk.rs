//! Walks over a module's parameters that know where they are.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Where a parameter stands in the module tree.
#[derive(Debug, Clone, Default)]
pub struct ParameterPath {
    names: Vec<String>,
    containers: Vec<String>,
}

impl ParameterPath {
    /// The names from the root on, with dots: `llm.layers.0.mlp.up_proj.weight`.
    pub fn dotted(&self) -> String {
        self.names.join(".")
    }

    /// Whether it is a linear layer's matrix: the one kind that checkpoints hold transposed,
    /// `[d_output, d_input]`.
    pub fn is_linear_weight(&self) -> bool {
        self.containers.last().is_some_and(|c| c == "Struct:Linear" || c == "Struct:BlockLinear")
            && self.names.last().is_some_and(|n| n == "weight")
    }

    fn enter(&mut self, name: &str, container_type: &str) {
        self.names.push(name.to_owned());
        self.containers.push(container_type.to_owned());
    }

    fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }
}

/// Looks at float parameters, one after the other.
pub trait ParameterVisitor {
    /// Looks at the parameter at `path`.
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>);
}

/// Replaces float parameters, one after the other.
pub trait ParameterMapper {
    /// The parameter that shall stand at `path` from now on.
    fn map<const D: usize>(&mut self, path: &ParameterPath, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Shows every float parameter of `module` to `visitor`, in the order of the module's fields.
pub fn visit_parameters<M: Module>(module: &M, visitor: &mut impl ParameterVisitor) {
    module.visit(&mut Walk { path: ParameterPath::default(), inner: visitor });
}

/// Passes every float parameter of `module` through `mapper`, in the order of the module's fields.
pub fn map_parameters<M: Module>(module: M, mapper: &mut impl ParameterMapper) -> M {
    module.map(&mut Walk { path: ParameterPath::default(), inner: mapper })
}

struct Walk<'a, V> {
    path: ParameterPath,
    inner: &'a mut V,
}

impl<V: ParameterVisitor> ModuleVisitor for Walk<'_, V> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.inner.visit(&self.path, param);
    }
}

impl<V: ParameterMapper> ModuleMapper for Walk<'_, V> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.inner.map(&self.path, param)
    }
}
