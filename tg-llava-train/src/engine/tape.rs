//! A pass through the model in segments, which can forget what happened inside a segment and repeat it later.

use burn::tensor::{Device, Tensor};
use tg_llava_core::model::TgLlava;

use crate::optim::ParameterGradients;

/// What is kept of a segment until its backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// Everything: one graph from end to end.
    Keep,
    /// The segment's inputs; the rest is computed again (`gradient_checkpointing`).
    Recompute,
}

/// A tensor that passes from segment to segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Var(usize);

type Forward<'m> = Box<dyn Fn(&[Tensor<3>]) -> Vec<Tensor<3>> + 'm>;

struct Segment<'m> {
    inputs: Vec<Var>,
    outputs: Vec<Var>,
    forward: Forward<'m>,
    seed: u64,
}

struct Value {
    /// On the graph with [`Activations::Keep`], without any graph otherwise.
    tensor: Tensor<3>,
    needs_grad: bool,
}

/// Records a forward pass segment by segment (a transformer block, an embedding, a projector), then goes back.
///
/// With [`Activations::Recompute`] the memory of activations is the inputs of all segments and the inside of
/// one. Every segment starts from a random seed of its own, so that dropout falls alike both times, and alike
/// in both modes.
pub struct Tape<'m> {
    model: &'m TgLlava,
    device: Device,
    activations: Activations,
    seed: u64,
    segments: Vec<Segment<'m>>,
    values: Vec<Value>,
    count: u64,
}

impl<'m> Tape<'m> {
    /// An empty tape over `model`, whose device must record gradients; `seed` decides all dropout on it.
    pub fn new(model: &'m TgLlava, activations: Activations, seed: u64) -> Self {
        let device = model.llm.device();
        Self { model, device, activations, seed, segments: Vec::new(), values: Vec::new(), count: 0 }
    }

    /// Runs a segment. `trains` tells whether it holds parameters that learn.
    ///
    /// `forward` must be a pure function of its inputs, the model and the random seed: it may run twice.
    pub fn run(
        &mut self,
        trains: bool,
        inputs: &[Var],
        forward: impl Fn(&[Tensor<3>]) -> Vec<Tensor<3>> + 'm,
    ) -> Vec<Var> {
        let seed = mix(self.seed, self.count);
        self.count += 1;
        let needs_grad = trains || inputs.iter().any(|var| self.values[var.0].needs_grad);
        let tensors: Vec<_> = inputs.iter().map(|&var| self.lifted(var)).collect();
        self.device.seed(seed);
        let outputs: Vec<Var> = forward(&tensors)
            .into_iter()
            .map(|tensor| {
                let tensor = match (self.activations, needs_grad) {
                    (Activations::Keep, true) => tensor,
                    _ => tensor.inner(),
                };
                self.values.push(Value { tensor, needs_grad });
                Var(self.values.len() - 1)
            })
            .collect();
        if needs_grad && self.activations == Activations::Recompute {
            let forward = Box::new(forward);
            self.segments.push(Segment { inputs: inputs.to_vec(), outputs: outputs.clone(), forward, seed });
        }
        outputs
    }

    /// [`Self::run`] for a segment with one output.
    pub fn run_one(
        &mut self,
        trains: bool,
        inputs: &[Var],
        forward: impl Fn(&[Tensor<3>]) -> Tensor<3> + 'm,
    ) -> Var {
        self.run(trains, inputs, move |inputs| vec![forward(inputs)])[0]
    }

    /// The value of `var`, without any graph.
    pub fn value(&self, var: Var) -> Tensor<3> {
        let value = &self.values[var.0];
        match self.on_graph(value) {
            true => value.tensor.clone().inner(),
            false => value.tensor.clone(),
        }
    }

    /// Goes back from `var`, whose gradient is `gradient` (without graph), and adds the parameters' gradients
    /// to `sink`.
    pub fn backward(mut self, var: Var, gradient: Tensor<3>, sink: &mut ParameterGradients) {
        if !self.values[var.0].needs_grad {
            return;
        }
        if self.activations == Activations::Keep {
            let value = self.values[var.0].tensor.clone();
            sink.add(self.model, &(value * Tensor::from_inner(gradient)).sum().backward());
            return;
        }
        let mut gradients: Vec<Option<Tensor<3>>> = vec![None; self.values.len()];
        gradients[var.0] = Some(gradient);
        while let Some(segment) = self.segments.pop() {
            let seeds: Vec<_> = segment.outputs.iter().map(|output| gradients[output.0].take()).collect();
            if seeds.iter().all(Option::is_none) {
                continue;
            }
            let inputs: Vec<_> = segment
                .inputs
                .iter()
                .map(|&input| match self.values[input.0].needs_grad {
                    true => self.lifted(input).require_grad(),
                    false => self.lifted(input),
                })
                .collect();
            self.device.seed(segment.seed);
            let outputs = (segment.forward)(&inputs);
            // The gradient of sum(y * g) with regard to y is g itself, so the seeds pass through exactly.
            let seeded = outputs.into_iter().zip(seeds);
            let seeded = seeded.filter_map(|(y, g)| Some((y * Tensor::from_inner(g?)).sum()));
            let Some(sum) = seeded.reduce(|a, b| a + b) else { continue };
            let found = sum.backward();
            sink.add(self.model, &found);
            for (input, var) in inputs.iter().zip(&segment.inputs) {
                let Some(gradient) = input.grad(&found).filter(|_| self.values[var.0].needs_grad) else {
                    continue;
                };
                gradients[var.0] = Some(match gradients[var.0].take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
            // Nothing before this segment reads what came out of it.
            for output in segment.outputs {
                self.values[output.0].tensor = Tensor::empty([0, 0, 0], &self.device.clone().inner());
            }
        }
    }

    fn on_graph(&self, value: &Value) -> bool {
        value.needs_grad && self.activations == Activations::Keep
    }

    fn lifted(&self, var: Var) -> Tensor<3> {
        let value = &self.values[var.0];
        match self.on_graph(value) {
            true => value.tensor.clone(),
            false => Tensor::from_inner(value.tensor.clone()),
        }
    }
}

/// A seed that depends on both numbers in every bit (the finaliser of SplitMix64).
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
