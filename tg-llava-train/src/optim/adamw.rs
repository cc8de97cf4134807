use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use tg_llava_core::nn::cast_to;

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

/// AdamW (Loshchilov and Hutter) with moments and master weights in f32 whatever the dtype of weights and gradients.
///
/// Burn's own keeps moments in the gradient's dtype; in bf16 they stand still at `beta2 = 0.999`.
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    config: AdamWConfig,
    weight_decay: f64,
}

/// What is kept of one parameter between steps.
#[derive(Debug, Clone)]
pub struct AdamWState<const D: usize> {
    /// Updates so far.
    pub step: i32,
    /// Mean of the gradients, in f32 (`exp_avg`).
    pub first: Tensor<D>,
    /// Mean of their squares, in f32 (`exp_avg_sq`).
    pub second: Tensor<D>,
    /// The weights in f32, where the model holds fewer bits.
    pub master: Option<Tensor<D>>,
}

/// Names of the parts of a parameter's state, as PyTorch has them.
pub(super) const FIRST: &str = "exp_avg";
pub(super) const SECOND: &str = "exp_avg_sq";
pub(super) const MASTER: &str = "master";
const STEP: &str = "step";

impl AdamW {
    /// An optimizer of parameters that decay by `weight_decay`, relative to the learning rate.
    pub fn new(config: AdamWConfig, weight_decay: f64) -> Self {
        Self { config, weight_decay }
    }
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let AdamWConfig { beta1, beta2, epsilon } = self.config;
        let dtype = tensor.dtype();
        let gradient = cast_to(grad, DType::F32);
        let AdamWState { step, first, second, master } = state.unwrap_or_else(|| AdamWState {
            step: 0,
            first: gradient.zeros_like(),
            second: gradient.zeros_like(),
            master: (dtype != DType::F32).then(|| cast_to(tensor.clone(), DType::F32)),
        });
        let step = step + 1;
        let first = first * beta1 + gradient.clone() * (1.0 - beta1);
        let second = second * beta2 + gradient.square() * (1.0 - beta2);
        let correction1 = 1.0 - beta1.powi(step);
        let correction2 = 1.0 - beta2.powi(step);
        let root = second.clone().sqrt() / correction2.sqrt() + epsilon;
        let has_master = master.is_some();
        let weights = master.unwrap_or(tensor) * (1.0 - lr * self.weight_decay);
        let weights = weights - first.clone() / root * (lr / correction1);
        let master = has_master.then(|| weights.clone());
        (cast_to(weights, dtype), Some(AdamWState { step, first, second, master }))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        AdamWState {
            step: state.step,
            first: state.first.to_device(device),
            second: state.second.to_device(device),
            master: state.master.map(|master| master.to_device(device)),
        }
    }
}

/// By hand, since the derived form reads tensors back in the device's default dtype.
impl<const D: usize> RecordState for AdamWState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, STEP, self.step.into());
        out.push_tensor(prefix, FIRST, self.first.to_data());
        out.push_tensor(prefix, SECOND, self.second.to_data());
        if let Some(master) = &self.master {
            out.push_tensor(prefix, MASTER, master.to_data());
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let tensor = |data: TensorData| Tensor::from_data(data, (device, DType::F32));
        Some(Self {
            step: src.take_scalar(prefix, STEP)?.try_into().ok()?,
            first: tensor(src.take_tensor(prefix, FIRST)?),
            second: tensor(src.take_tensor(prefix, SECOND)?),
            master: src.take_tensor(prefix, MASTER).map(tensor),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What Burn's records lose, a state in bf16 would not survive.
    #[test]
    fn a_recorded_state_comes_back_to_the_bit_in_f32() {
        let device = Device::flex();
        let tensor = |values: [f32; 2]| Tensor::<1>::from_data(values, (&device, DType::F32));
        let optimizer = AdamW::new(AdamWConfig::default(), 0.1);
        let weights = cast_to(tensor([1.0, -2.0]), DType::F16);
        let (weights, state) = optimizer.step(0.01, weights, cast_to(tensor([0.3, 1e-4]), DType::F16), None);
        assert_eq!(weights.dtype(), DType::F16);
        let state = state.unwrap();
        let mut sink = StateSink::default();
        state.state_flatten("7", &mut sink);
        let mut source = StateSource::new(sink.scalars.into_iter().collect::<BTreeMap<_, _>>());
        for (name, data) in sink.tensors {
            source.insert_tensor(name, data);
        }
        let back = AdamWState::<1>::state_unflatten("7", &mut source, &device).unwrap();
        assert_eq!(back.step, 1);
        let pairs = [
            (back.first, state.first),
            (back.second, state.second),
            (back.master.unwrap(), state.master.unwrap()),
        ];
        for (back, kept) in pairs {
            assert_eq!(back.dtype(), DType::F32);
            back.into_data().assert_eq(&kept.into_data(), true);
        }
    }
}
