use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use tg_llava_core::nn::cast_to;
use tg_llava_core::weights::{ParameterMapper, ParameterPath, map_parameters};

use super::{ParameterGradients, ParameterSettings};

/// Constants of AdamW; the defaults are PyTorch's, which the reference uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// AdamW (Loshchilov and Hutter) with moments and master weights in f32 whatever the compute dtype.
///
/// Burn's own keeps moments in the gradient's dtype; in bf16 they stand still at `beta2 = 0.999`.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    state: BTreeMap<String, State>,
}

/// What is kept of one parameter between steps; all flat.
#[derive(Debug, Clone)]
struct State {
    step: i32,
    first: Tensor<1>,
    second: Tensor<1>,
    /// The weights in f32, where the model holds fewer bits.
    master: Option<Tensor<1>>,
}

impl AdamW {
    /// An optimizer that has seen no step.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, state: BTreeMap::new() }
    }

    /// Updates every parameter of `module` that has a gradient; `settings` gives rate and decay by its path.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: &ParameterGradients,
        settings: &dyn Fn(&str) -> ParameterSettings,
    ) -> M {
        map_parameters(module, &mut Updater { optimizer: self, gradients, settings })
    }

    /// What must be kept to go on later, by name: `<path>.exp_avg`, `<path>.exp_avg_sq` and, where the model
    /// holds fewer bits than f32, `<path>.master`; all flat and in f32.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Tensor<1>)> + '_ {
        self.state.iter().flat_map(|(path, state)| {
            let parts =
                [(FIRST, Some(&state.first)), (SECOND, Some(&state.second)), (MASTER, state.master.as_ref())];
            parts
                .into_iter()
                .filter_map(move |(name, tensor)| Some((format!("{path}.{name}"), tensor?.clone())))
        })
    }

    /// Updates that each parameter has seen, by path.
    pub fn steps(&self) -> BTreeMap<String, i32> {
        self.state.iter().map(|(path, state)| (path.clone(), state.step)).collect()
    }

    /// An optimizer as [`Self::tensors`] and [`Self::steps`] described it; `read` gives the tensor of a name.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn restore<E>(
        config: AdamWConfig,
        steps: &BTreeMap<String, i32>,
        has_master: &dyn Fn(&str) -> bool,
        read: &mut dyn FnMut(&str) -> Result<Tensor<1>, E>,
    ) -> Result<Self, E> {
        let mut state = BTreeMap::new();
        for (path, &step) in steps {
            let master = format!("{path}.{MASTER}");
            let first = read(&format!("{path}.{FIRST}"))?;
            let second = read(&format!("{path}.{SECOND}"))?;
            let master = if has_master(&master) { Some(read(&master)?) } else { None };
            state.insert(path.clone(), State { step, first, second, master });
        }
        Ok(Self { config, state })
    }

    fn update(
        &mut self,
        path: &str,
        value: Tensor<1>,
        gradient: Tensor<1>,
        settings: ParameterSettings,
    ) -> Tensor<1> {
        let AdamWConfig { beta1, beta2, epsilon } = self.config;
        let dtype = value.dtype();
        let state = self.state.entry(path.to_owned()).or_insert_with(|| State {
            step: 0,
            first: gradient.zeros_like(),
            second: gradient.zeros_like(),
            master: (dtype != DType::F32).then(|| cast_to(value.clone(), DType::F32)),
        });
        state.step += 1;
        state.first = state.first.clone() * beta1 + gradient.clone() * (1.0 - beta1);
        state.second = state.second.clone() * beta2 + gradient.square() * (1.0 - beta2);
        let correction1 = 1.0 - beta1.powi(state.step);
        let correction2 = 1.0 - beta2.powi(state.step);
        let root = state.second.clone().sqrt() / correction2.sqrt() + epsilon;
        let weights = state.master.clone().unwrap_or(value);
        let weights = weights * (1.0 - settings.lr * settings.weight_decay);
        let weights = weights - state.first.clone() / root * (settings.lr / correction1);
        if state.master.is_some() {
            state.master = Some(weights.clone());
        }
        cast_to(weights, dtype)
    }
}

/// Names of the parts of a parameter's state, as PyTorch has them.
const FIRST: &str = "exp_avg";
const SECOND: &str = "exp_avg_sq";
const MASTER: &str = "master";

struct Updater<'a> {
    optimizer: &'a mut AdamW,
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
        let updated = self.optimizer.update(&path, value, gradient, (self.settings)(&path));
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
        let mut optimizer = AdamW::new(AdamWConfig::default());
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
        let mut optimizer = AdamW::new(AdamWConfig::default());
        let settings = |_: &str| ParameterSettings { lr: 0.5, weight_decay: 0.2 };
        let layer = optimizer.step(layer, &gradients, &settings);
        let weights = layer.weight.val().into_data().try_to_vec::<f32>().unwrap();
        assert!((weights[0] - (2.7 - 0.5)).abs() < 1e-4 && (weights[1] - (3.6 - 0.5)).abs() < 1e-4);
    }
}
