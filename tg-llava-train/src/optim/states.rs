use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::Optimizer;
use burn::tensor::Tensor;
use tg_llava_core::weights::{ParameterMapper, ParameterPath, map_parameters};

use super::adamw::{FIRST, MASTER, SECOND};
use super::{AdamW, AdamWConfig, AdamWState, ParameterGradients, ParameterSettings};

/// [`AdamW`] on a whole module, its states kept flat and by parameter path.
///
/// Burn's `ModuleOptimizer` keys them by ids that another run does not have, and gives them out as one record.
#[derive(Debug, Clone)]
pub struct OptimizerStates {
    config: AdamWConfig,
    by_path: BTreeMap<String, AdamWState<1>>,
}

impl OptimizerStates {
    /// No step seen yet.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, by_path: BTreeMap::new() }
    }

    /// Updates every parameter of `module` that has a gradient; `settings` gives rate and decay by its path.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: &ParameterGradients,
        settings: &dyn Fn(&str) -> ParameterSettings,
    ) -> M {
        map_parameters(module, &mut Updater { states: self, gradients, settings })
    }

    /// What must be kept to go on later, by name: `<path>.exp_avg`, `<path>.exp_avg_sq` and, where the model
    /// holds fewer bits than f32, `<path>.master`; all flat and in f32.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Tensor<1>)> + '_ {
        self.by_path.iter().flat_map(|(path, state)| {
            let parts =
                [(FIRST, Some(&state.first)), (SECOND, Some(&state.second)), (MASTER, state.master.as_ref())];
            parts
                .into_iter()
                .filter_map(move |(name, tensor)| Some((format!("{path}.{name}"), tensor?.clone())))
        })
    }

    /// Updates that each parameter has seen, by path.
    pub fn steps(&self) -> BTreeMap<String, i32> {
        self.by_path.iter().map(|(path, state)| (path.clone(), state.step)).collect()
    }

    /// States as [`Self::tensors`] and [`Self::steps`] described them; `read` gives the tensor of a name.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn restore<E>(
        config: AdamWConfig,
        steps: &BTreeMap<String, i32>,
        has_master: &dyn Fn(&str) -> bool,
        read: &mut dyn FnMut(&str) -> Result<Tensor<1>, E>,
    ) -> Result<Self, E> {
        let mut by_path = BTreeMap::new();
        for (path, &step) in steps {
            let master = format!("{path}.{MASTER}");
            let first = read(&format!("{path}.{FIRST}"))?;
            let second = read(&format!("{path}.{SECOND}"))?;
            let master = if has_master(&master) { Some(read(&master)?) } else { None };
            by_path.insert(path.clone(), AdamWState { step, first, second, master });
        }
        Ok(Self { config, by_path })
    }
}

struct Updater<'a> {
    states: &'a mut OptimizerStates,
    gradients: &'a ParameterGradients,
    settings: &'a dyn Fn(&str) -> ParameterSettings,
}

impl ParameterMapper for Updater<'_> {
    fn map<const D: usize>(&mut self, path: &ParameterPath, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = path.dotted();
        let Some(gradient) = self.gradients.get(&path).cloned() else { return param };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let count = tensor.shape().num_elements();
        let value = tensor.inner().reshape([count]);
        let ParameterSettings { lr, weight_decay } = (self.settings)(&path);
        let optimizer = AdamW::new(self.states.config, weight_decay);
        let state = self.states.by_path.remove(&path);
        let (updated, state) = optimizer.step(lr, value, gradient, state);
        self.states.by_path.extend(state.map(|state| (path, state)));
        let updated = Tensor::from_inner(updated.reshape(shape)).require_grad();
        Param::from_mapped_value(id, updated, mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;

    fn linear(device: &Device, values: [f32; 2]) -> Linear {
        let mut layer = LinearConfig::new(2, 1).with_bias(false).init(device);
        layer.weight = Param::from_data([[values[0]], [values[1]]], device);
        layer
    }

    /// Three steps by hand: with a constant gradient the bias-corrected update is the learning rate itself.
    #[test]
    fn a_constant_gradient_moves_by_the_learning_rate() {
        let device = Device::flex().autodiff();
        let mut layer = linear(&device, [1.0, -2.0]);
        let mut optimizer = OptimizerStates::new(AdamWConfig::default());
        for _ in 0..3 {
            let input = Tensor::<2>::from_floats([[0.5, -4.0]], &device);
            let mut gradients = ParameterGradients::new();
            gradients.add(&layer, &layer.forward(input).sum().backward());
            let settings = |_: &str| ParameterSettings { lr: 0.1, weight_decay: 0.0 };
            layer = optimizer.step(layer, &gradients, &settings);
        }
        let weights = layer.weight.val().into_data().try_to_vec::<f32>().unwrap();
        assert!((weights[0] - 0.7).abs() < 1e-5 && (weights[1] + 1.7).abs() < 1e-5, "{weights:?}");
    }

    #[test]
    fn decay_shrinks_and_clipping_bounds() {
        let device = Device::flex().autodiff();
        let layer = linear(&device, [3.0, 4.0]);
        let input = Tensor::<2>::from_floats([[30.0, 40.0]], &device);
        let mut gradients = ParameterGradients::new();
        gradients.add(&layer, &layer.forward(input).sum().backward());
        assert!((gradients.clip(1.0).unwrap() - 50.0).abs() < 1e-4);
        assert!((gradients.global_norm().unwrap() - 1.0).abs() < 1e-5);
        let mut optimizer = OptimizerStates::new(AdamWConfig::default());
        let settings = |_: &str| ParameterSettings { lr: 0.5, weight_decay: 0.2 };
        let layer = optimizer.step(layer, &gradients, &settings);
        let weights = layer.weight.val().into_data().try_to_vec::<f32>().unwrap();
        assert!((weights[0] - (2.7 - 0.5)).abs() < 1e-4 && (weights[1] - (3.6 - 0.5)).abs() < 1e-4);
    }
}
