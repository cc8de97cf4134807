use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Gradients, Tensor};
use tg_llava_core::Error;
use tg_llava_core::nn::cast_to;
use tg_llava_core::weights::{ParameterPath, ParameterVisitor, visit_parameters};

use super::norm::{read, squares};

/// Gradients of a module's parameters by path, flat, summed in f32 over micro-batches.
///
/// Keyed by path and not by Burn's parameter ids: paths mean the same in the next run.
#[derive(Debug, Clone, Default)]
pub struct ParameterGradients {
    /// A gradient that nothing was added to is as the pass gave it, since a large model's are better not copied for nothing.
    by_path: BTreeMap<String, Tensor<1>>,
}

impl ParameterGradients {
    /// No gradient yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what one backward pass gave the parameters of `module`; frozen ones have none.
    pub fn add<M: Module>(&mut self, module: &M, gradients: &Gradients) {
        visit_parameters(module, &mut Adder { sums: &mut self.by_path, gradients });
    }

    /// Multiplies all gradients: with `1 / k` the sum over `k` micro-batches becomes their mean.
    pub fn scale(&mut self, factor: f64) {
        for gradient in self.by_path.values_mut() {
            *gradient = cast_to(gradient.clone(), DType::F32) * factor;
        }
    }

    /// The length of all gradients as one vector, to the same bits every time; see [`squares`].
    ///
    /// # Errors
    /// [`Error::Request`] where the device could not compute it.
    pub fn global_norm(&self) -> Result<f64, Error> {
        let squares = read(self.by_path.values().map(squares).collect())?;
        Ok(squares.into_iter().map(f64::from).sum::<f64>().sqrt())
    }

    /// Scales all gradients so that their global norm is at most `max_norm`, as
    /// `torch.nn.utils.clip_grad_norm_`; returns the norm before.
    ///
    /// # Errors
    /// As [`Self::global_norm`].
    pub fn clip(&mut self, max_norm: f64) -> Result<f64, Error> {
        let norm = self.global_norm()?;
        let factor = max_norm / (norm + 1e-6);
        if factor < 1.0 {
            self.scale(factor);
        }
        Ok(norm)
    }

    /// Takes the gradient of the parameter at `path` out, flat: in f32 where it is a sum, and else as the pass gave it.
    pub fn take(&mut self, path: &str) -> Option<Tensor<1>> {
        self.by_path.remove(path)
    }

    /// The gradient of the parameter at `path`, flat and in f32.
    pub fn get(&self, path: &str) -> Option<Tensor<1>> {
        self.by_path.get(path).map(|gradient| cast_to(gradient.clone(), DType::F32))
    }

    /// The gradients as Burn keeps them: by the ids of `module`'s parameters, in their shapes.
    pub fn by_id<M: Module>(&self, module: &M) -> GradientsParams {
        let mut out = GradientsParams::new();
        visit_parameters(module, &mut Registrar { by_path: &self.by_path, out: &mut out });
        out
    }

    /// What [`Self::by_id`] gave.
    pub fn of_ids<M: Module>(module: &M, mut gradients: GradientsParams) -> Self {
        let mut by_path = BTreeMap::new();
        visit_parameters(module, &mut Collector { by_path: &mut by_path, gradients: &mut gradients });
        Self { by_path }
    }

    /// Number of parameters that have a gradient.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Whether no parameter has a gradient.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }
}

struct Adder<'a> {
    sums: &'a mut BTreeMap<String, Tensor<1>>,
    gradients: &'a Gradients,
}

impl ParameterVisitor for Adder<'_> {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad(self.gradients) else { return };
        let gradient = flat(gradient);
        let path = path.dotted();
        let sum = match self.sums.remove(&path) {
            Some(sum) => cast_to(sum, DType::F32) + cast_to(gradient, DType::F32),
            None => gradient,
        };
        self.sums.insert(path, sum);
    }
}

struct Registrar<'a> {
    by_path: &'a BTreeMap<String, Tensor<1>>,
    out: &'a mut GradientsParams,
}

impl ParameterVisitor for Registrar<'_> {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.by_path.get(&path.dotted()) {
            let gradient = cast_to(gradient.clone(), DType::F32);
            let gradient: Tensor<D> = gradient.reshape(param.lazy_shape());
            self.out.register(param.id, gradient);
        }
    }
}

struct Collector<'a> {
    by_path: &'a mut BTreeMap<String, Tensor<1>>,
    gradients: &'a mut GradientsParams,
}

impl ParameterVisitor for Collector<'_> {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.by_path.insert(path.dotted(), flat(gradient));
        }
    }
}

/// In a row.
fn flat<const D: usize>(gradient: Tensor<D>) -> Tensor<1> {
    let count = gradient.shape().num_elements();
    gradient.reshape([count])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    /// A sum over four million values in one go differs from run to run on two threads.
    #[test]
    fn the_norm_of_a_large_gradient_is_the_same_to_the_bit_with_any_threads() {
        let device = Device::flex();
        device.seed(3);
        let count = (4 << 20) + 5;
        let values: Tensor<1> = Tensor::random([count], Distribution::Normal(0.0, 1.0), &device);
        let exact = values.clone().into_data().try_to_vec::<f32>().unwrap();
        let exact = exact.into_iter().map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let gradients = ParameterGradients { by_path: BTreeMap::from([("a".to_owned(), values)]) };
        let norms: Vec<f64> = [1, 2, 2, 2, 2, 2, 2, 2]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| gradients.global_norm().unwrap())
            })
            .collect();
        assert!(norms.iter().all(|norm| norm.to_bits() == norms[0].to_bits()), "{norms:?}");
        assert!((norms[0] / exact - 1.0).abs() < 1e-7, "{} and {exact}", norms[0]);
    }
}
