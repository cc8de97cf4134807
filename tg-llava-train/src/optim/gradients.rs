use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Gradients, Tensor};
use tg_llava_core::Error;
use tg_llava_core::nn::cast_to;
use tg_llava_core::weights::{ParameterPath, ParameterVisitor, visit_parameters};

/// Gradients of a module's parameters by path, flat and in f32, summed over micro-batches.
///
/// Keyed by path and not by Burn's parameter ids: paths mean the same in the next run.
#[derive(Debug, Clone, Default)]
pub struct ParameterGradients {
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
            *gradient = gradient.clone() * factor;
        }
    }

    /// The length of all gradients as one vector, to the same bits every time: rows of 4,096 values are summed on the device,
    /// the rows in f64 in their order. (A sum over millions of values in one go follows the threads on flex.)
    ///
    /// # Errors
    /// [`Error::Request`] where the device could not compute it.
    pub fn global_norm(&self) -> Result<f64, Error> {
        let rows: Vec<Tensor<1>> = self.by_path.values().flat_map(sums_of_squares).collect();
        if rows.is_empty() {
            return Ok(0.0);
        }
        let sums = Tensor::cat(rows, 0).try_into_vec_as::<f32>();
        let sums =
            sums.map_err(|e| Error::Request(format!("the device could not compute the gradients: {e}")))?;
        Ok(sums.into_iter().map(f64::from).sum::<f64>().sqrt())
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

    /// The gradient of the parameter at `path`, flat.
    pub fn get(&self, path: &str) -> Option<&Tensor<1>> {
        self.by_path.get(path)
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

/// Values that are summed on the device.
const ROW: usize = 4096;

/// The sum of squares of each row of [`ROW`] values, and of what is left.
fn sums_of_squares(values: &Tensor<1>) -> Vec<Tensor<1>> {
    let count = values.dims()[0];
    let (rows, rest) = (count / ROW, count % ROW);
    let sum =
        |part: Tensor<1>, shape: [usize; 2]| part.reshape(shape).square().sum_dim(1).reshape([shape[0]]);
    let whole = (rows > 0).then(|| sum(values.clone().narrow(0, 0, rows * ROW), [rows, ROW]));
    let left = (rest > 0).then(|| sum(values.clone().narrow(0, rows * ROW, rest), [1, rest]));
    whole.into_iter().chain(left).collect()
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
            Some(sum) => sum + gradient,
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
            let gradient: Tensor<D> = gradient.clone().reshape(param.lazy_shape());
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

/// In a row, in f32.
fn flat<const D: usize>(gradient: Tensor<D>) -> Tensor<1> {
    let count = gradient.shape().num_elements();
    cast_to(gradient.reshape([count]), DType::F32)
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
