use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::Optimizer;
use burn::tensor::Tensor;
use tg_llava_core::weights::{ParameterMapper, ParameterPath, map_parameters};

use super::adamw::{FIRST, MASTER, SECOND};
use super::{AdamW, AdamWConfig, AdamWState, ParameterSettings};
use crate::parallel::{Collective, ParallelError, ShardLayout};

/// [`AdamW`] on a whole module, its states kept flat and by parameter path: this rank's slices of them.
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

    /// Updates every parameter of `module` that has a gradient, together with the other ranks: each updates its slice.
    ///
    /// The module comes back in any case; after an error its parameters are of no use.
    pub fn step<M: Module>(&mut self, module: M, mut update: Update<'_>) -> (M, Result<(), ParallelError>) {
        let mut updater = Updater { states: self, update: &mut update, result: Ok(()) };
        let module = map_parameters(module, &mut updater);
        let result = updater.result;
        (module, result)
    }

    /// What must be kept to go on later: by path and part, `exp_avg`, `exp_avg_sq` and, where the model holds fewer bits than f32,
    /// `master`; this rank's slices, flat and in f32.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &'static str, Tensor<1>)> + '_ {
        self.by_path.iter().flat_map(|(path, state)| {
            let parts =
                [(FIRST, Some(&state.first)), (SECOND, Some(&state.second)), (MASTER, state.master.as_ref())];
            parts.into_iter().filter_map(move |(part, tensor)| Some((path.as_str(), part, tensor?.clone())))
        })
    }

    /// Updates that each parameter has seen, by path.
    pub fn steps(&self) -> BTreeMap<String, i32> {
        self.by_path.iter().map(|(path, state)| (path.clone(), state.step)).collect()
    }

    /// States as [`Self::tensors`] and [`Self::steps`] described them; `has` tells whether there is such a part, `read` gives it, both
    /// by path and part.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn restore<E>(
        config: AdamWConfig,
        steps: &BTreeMap<String, i32>,
        has: &dyn Fn(&str, &str) -> bool,
        read: &mut dyn FnMut(&str, &str) -> Result<Tensor<1>, E>,
    ) -> Result<Self, E> {
        let mut by_path = BTreeMap::new();
        for (path, &step) in steps {
            let (first, second) = (read(path, FIRST)?, read(path, SECOND)?);
            let master = if has(path, MASTER) { Some(read(path, MASTER)?) } else { None };
            by_path.insert(path.clone(), AdamWState { step, first, second, master });
        }
        Ok(Self { config, by_path })
    }
}

/// One update of a module.
pub struct Update<'a> {
    /// This rank's slices of the gradients by path, flat and in f32.
    pub gradients: BTreeMap<String, Tensor<1>>,
    /// What all of them are multiplied with.
    pub factor: f64,
    /// Rate and decay of the parameter at a path.
    pub settings: &'a dyn Fn(&str) -> ParameterSettings,
    /// Those who hold the other slices.
    pub collective: &'a mut dyn Collective,
}

struct Updater<'a, 'u> {
    states: &'a mut OptimizerStates,
    update: &'a mut Update<'u>,
    result: Result<(), ParallelError>,
}

impl Updater<'_, '_> {
    /// The new values of the parameter at `path`, flat.
    fn updated(
        &mut self,
        path: String,
        values: Tensor<1>,
        gradient: Tensor<1>,
    ) -> Result<Tensor<1>, ParallelError> {
        let ParameterSettings { lr, weight_decay } = (self.update.settings)(&path);
        let optimizer = AdamW::new(self.states.config, weight_decay);
        let gradient = match self.update.factor {
            1.0 => gradient,
            factor => gradient * factor,
        };
        let world = self.update.collective.world();
        let layout = ShardLayout { count: values.dims()[0], ranks: world.local_size() };
        let slice = layout.slice(&values, world.local_rank());
        let state = self.states.by_path.remove(&path);
        let (slice, state) = optimizer.step(lr, slice, gradient, state);
        self.states.by_path.extend(state.map(|state| (path, state)));
        let full = self.update.collective.all_gather(vec![slice], vec![values])?;
        let full = full.into_iter().next().expect("as many tensors come as went");
        Ok(if layout.padded() > layout.count { full.narrow(0, 0, layout.count) } else { full })
    }
}

impl ParameterMapper for Updater<'_, '_> {
    fn map<const D: usize>(&mut self, path: &ParameterPath, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = path.dotted();
        let Some(gradient) = self.update.gradients.remove(&path) else { return param };
        if self.result.is_err() {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let (shape, count) = (tensor.dims(), tensor.shape().num_elements());
        let (device, dtype) = (tensor.device().inner(), tensor.dtype());
        // Given away, so that the old values can go before the new ones are there.
        let updated = self.updated(path, tensor.inner().reshape([count]), gradient);
        let updated = updated.unwrap_or_else(|error| {
            self.result = Err(error);
            Tensor::zeros([count], (&device, dtype))
        });
        Param::from_mapped_value(id, Tensor::from_inner(updated.reshape(shape)).require_grad(), mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;
    use crate::optim::ParameterGradients;
    use crate::parallel::Single;

    /// One update of `layer` by what `input` gives, of which `factor` is taken.
    fn step(
        optimizer: &mut OptimizerStates,
        layer: Linear,
        input: [f32; 2],
        (lr, weight_decay, factor): (f64, f64, f64),
    ) -> Linear {
        let device = layer.weight.device();
        let input = Tensor::<2>::from_floats([input], &device);
        let mut gradients = ParameterGradients::new();
        gradients.add(&layer, &layer.forward(input).sum().backward());
        let update = Update {
            gradients: BTreeMap::from([("weight".to_owned(), gradients.take("weight").unwrap())]),
            factor,
            settings: &|_| ParameterSettings { lr, weight_decay },
            collective: &mut Single,
        };
        let (layer, result) = optimizer.step(layer, update);
        result.unwrap();
        layer
    }

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
            layer = step(&mut optimizer, layer, [0.5, -4.0], (0.1, 0.0, 1.0));
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
        let layer = step(&mut optimizer, layer, [30.0, 40.0], (0.5, 0.2, 1.0 / 50.0));
        let weights = layer.weight.val().into_data().try_to_vec::<f32>().unwrap();
        assert!((weights[0] - (2.7 - 0.5)).abs() < 1e-4 && (weights[1] - (3.6 - 0.5)).abs() < 1e-4);
    }
}
