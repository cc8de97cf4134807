//! A pass through the model which can forget what happened inside a step and repeat it later.

use burn::module::Module;
use burn::tensor::{Device, Gradients, Tensor};
use tg_llava_core::model::TgLlava;
use tg_llava_core::nn::Residual;
use tg_llava_core::pass::{Pass, Site};

use super::parts::TrainedParts;
use crate::optim::ParameterGradients;
use crate::parallel::ParallelError;
use crate::parallel::watch::Progress;

/// Where the gradients of a backward pass go.
pub trait GradientSink {
    /// Adds what one part of the pass gave the parameters of `module`.
    fn add<M: Module>(&mut self, module: &M, gradients: &Gradients);

    /// The pass is through with `site`: nothing is added any more to the parameters there, nor to those behind.
    ///
    /// # Errors
    /// Where what is ready cannot be passed on.
    fn passed(&mut self, site: Site) -> Result<(), ParallelError>;
}

impl GradientSink for ParameterGradients {
    fn add<M: Module>(&mut self, module: &M, gradients: &Gradients) {
        Self::add(self, module, gradients);
    }

    fn passed(&mut self, _site: Site) -> Result<(), ParallelError> {
        Ok(())
    }
}

/// What is kept of a step until its backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// Everything: one graph from end to end.
    Keep,
    /// The step's inputs; the rest is computed again (`gradient_checkpointing`).
    Recompute,
}

/// A tensor that passes from step to step.
#[derive(Debug, Clone)]
pub struct Var {
    /// On the graph with [`Activations::Keep`] where it needs a gradient, without any graph otherwise.
    tensor: Tensor<3>,
    /// Its number among the tensors that need a gradient.
    gradient: Option<usize>,
}

/// Runs a step once more, for a number whose gradients on the step's inputs and weights are those of the outputs' own gradients, of which
/// some may be missing.
type Repeat<'m> = Box<dyn Fn(&[Tensor<3>], Vec<Option<Tensor<3>>>) -> Option<Tensor<1>> + 'm>;

/// A step that is repeated on the way back.
struct Segment<'m> {
    site: Site,
    inputs: Vec<Var>,
    outputs: Vec<usize>,
    repeat: Repeat<'m>,
    seed: u64,
}

/// Records a forward pass step by step (a transformer block, an embedding, a projector), then goes back.
///
/// With [`Activations::Recompute`] the memory of activations is the inputs of all steps and the inside of one. Steps below
/// everything that learns are not recorded. Every step starts from a random seed of its own, so that dropout falls alike both
/// times, and alike in both modes.
pub struct Tape<'m> {
    model: &'m TgLlava,
    device: Device,
    parts: TrainedParts,
    with_adapter: bool,
    activations: Activations,
    seed: u64,
    segments: Vec<Segment<'m>>,
    steps: u64,
    gradients: usize,
}

impl<'m> Tape<'m> {
    /// An empty tape over `model`, whose device must record gradients and of which `parts` learn; `seed` decides all dropout on it.
    pub fn new(model: &'m TgLlava, parts: TrainedParts, activations: Activations, seed: u64) -> Self {
        let device = model.llm.device();
        let with_adapter = model.llm.has_adapter();
        let segments = Vec::new();
        Self { model, device, parts, with_adapter, activations, seed, segments, steps: 0, gradients: 0 }
    }

    /// The value of `var`, without any graph.
    pub fn value(&self, var: &Var) -> Tensor<3> {
        match self.on_graph(var) {
            true => var.tensor.clone().inner(),
            false => var.tensor.clone(),
        }
    }

    /// Goes back from `var`, whose gradient is `gradient` (without graph), and adds the parameters' gradients
    /// to `sink`.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn backward(
        mut self,
        var: Var,
        gradient: Tensor<3>,
        sink: &mut impl GradientSink,
    ) -> Result<(), ParallelError> {
        let Some(last) = var.gradient else { return Ok(()) };
        if self.activations == Activations::Keep {
            sink.add(self.model, &(var.tensor * Tensor::from_inner(gradient)).sum().backward());
            return Ok(());
        }
        drop(var);
        let mut gradients: Vec<Option<Tensor<3>>> = vec![None; self.gradients];
        gradients[last] = Some(gradient);
        while let Some(segment) = self.segments.pop() {
            Progress::of_process().tick();
            let seeds =
                segment.outputs.iter().map(|&output| gradients[output].take().map(Tensor::from_inner));
            let seeds: Vec<_> = seeds.collect();
            if seeds.iter().all(Option::is_none) {
                continue;
            }
            let inputs: Vec<_> = segment
                .inputs
                .iter()
                .map(|input| match input.gradient {
                    Some(_) => self.lifted(input).require_grad(),
                    None => self.lifted(input),
                })
                .collect();
            self.device.seed(segment.seed);
            let Some(sum) = (segment.repeat)(&inputs, seeds) else { continue };
            let found = sum.backward();
            sink.add(self.model, &found);
            for (input, var) in inputs.iter().zip(&segment.inputs) {
                let Some((slot, gradient)) = var.gradient.zip(input.grad(&found)) else { continue };
                gradients[slot] = Some(match gradients[slot].take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
            drop(found);
            sink.passed(segment.site)?;
        }
        Ok(())
    }

    /// Computes a step; its outputs, and the seed that it started from.
    fn compute(
        &mut self,
        at: Site,
        inputs: &[Var],
        step: impl Fn(&[Tensor<3>]) -> Vec<Tensor<3>>,
    ) -> (Vec<Var>, u64) {
        Progress::of_process().tick();
        let seed = mix(self.seed, self.steps);
        self.steps += 1;
        let learns = self.parts.learn_at(at, self.with_adapter);
        let needs_gradient = learns || inputs.iter().any(|input| input.gradient.is_some());
        let tensors: Vec<_> = inputs.iter().map(|input| self.lifted(input)).collect();
        self.device.seed(seed);
        let outputs = step(&tensors).into_iter().map(|tensor| {
            let gradient = needs_gradient.then_some(self.gradients);
            self.gradients += usize::from(needs_gradient);
            let tensor = match (self.activations, needs_gradient) {
                (Activations::Keep, true) => tensor,
                _ => tensor.inner(),
            };
            Var { tensor, gradient }
        });
        (outputs.collect(), seed)
    }

    /// Keeps what is to be repeated.
    fn keep(&mut self, site: Site, inputs: &[Var], outputs: &[Var], seed: u64, repeat: Repeat<'m>) {
        let outputs: Vec<usize> = outputs.iter().filter_map(|output| output.gradient).collect();
        if !outputs.is_empty() && self.activations == Activations::Recompute {
            self.segments.push(Segment { site, inputs: inputs.to_vec(), outputs, repeat, seed });
        }
    }

    fn on_graph(&self, var: &Var) -> bool {
        var.gradient.is_some() && self.activations == Activations::Keep
    }

    fn lifted(&self, var: &Var) -> Tensor<3> {
        match self.on_graph(var) {
            true => var.tensor.clone(),
            false => Tensor::from_inner(var.tensor.clone()),
        }
    }
}

impl<'m> Pass<'m> for Tape<'m> {
    type Var = Var;

    fn run(
        &mut self,
        at: Site,
        inputs: &[Var],
        step: impl Fn(&[Tensor<3>]) -> Vec<Tensor<3>> + 'm,
    ) -> Vec<Var> {
        let (outputs, seed) = self.compute(at, inputs, &step);
        self.keep(
            at,
            inputs,
            &outputs,
            seed,
            Box::new(move |inputs, gradients| {
                // The gradient of sum(y * g) with regard to y is g itself, so these pass through exactly.
                let pairs = step(inputs).into_iter().zip(gradients);
                pairs.filter_map(|(y, g)| Some((y * g?).sum())).reduce(|a, b| a + b)
            }),
        );
        outputs
    }

    fn run_residual(
        &mut self,
        at: Site,
        inputs: &[Var],
        step: impl Fn(&[Tensor<3>]) -> Residual<'m> + 'm,
    ) -> Var {
        let (mut outputs, seed) = self.compute(at, inputs, |inputs| vec![step(inputs).sum()]);
        self.keep(
            at,
            inputs,
            &outputs,
            seed,
            Box::new(move |inputs, mut gradients| Some(step(inputs).against(gradients.pop()??))),
        );
        outputs.remove(0)
    }
}

/// A seed that depends on both numbers in every bit (the finaliser of SplitMix64).
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
