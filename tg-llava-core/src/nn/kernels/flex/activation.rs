use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};

use super::pieces::by_pieces;
use super::recorded::{self, Derivative, Input};
use super::{PARALLEL, Wrapper, each_two_chunks, exp::exp, in_rows, zeros};

/// Values that one task computes.
const CHUNK: usize = 1 << 14;

/// `x * sigmoid(1.702 x)`.
pub(crate) fn quick_gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    gate(x, None, 1.702)
}

/// `x * sigmoid(x)`.
pub(crate) fn silu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    gate(x, None, 1.0)
}

/// `silu(x) * up`, recorded where a gradient is wanted.
pub(crate) fn silu_gate<const D: usize>(x: &Tensor<D>, up: &Tensor<D>) -> Option<Tensor<D>> {
    if let Some(inputs) = recorded::inputs([Input::of(x), Input::of(up)]) {
        let output = silu_gate(&x.clone().inner(), &up.clone().inner())?;
        let [x, up] = inputs.each_ref().map(Input::values);
        return recorded::record(inputs, GateBack { x, up }, output);
    }
    gate(x, Some(up), 1.0)
}

/// `x * sigmoid(steepness x) [* factor]`.
fn gate<const D: usize>(x: &Tensor<D>, factor: Option<&Tensor<D>>, steepness: f32) -> Option<Tensor<D>> {
    let wrapper = Wrapper::of(x)?;
    let source = wrapper.strip(x.clone())?;
    let gate = |x: &[f32], factor: Option<&[f32]>, out: &mut [f32]| {
        pulp::Arch::new().dispatch(Gate { out, x, factor, steepness });
    };
    match factor {
        None => by_pieces(wrapper, [source], CHUNK, |[x], out| gate(x, None, out)),
        Some(factor) => {
            let inputs = [source, Wrapper::of(factor)?.strip(factor.clone())?];
            by_pieces(wrapper, inputs, CHUNK, |[x, factor], out| gate(x, Some(factor), out))
        }
    }
}

struct Gate<'a> {
    out: &'a mut [f32],
    x: &'a [f32],
    factor: Option<&'a [f32]>,
    steepness: f32,
}

impl WithSimd for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        gate_values(self.out, self.x, self.factor, self.steepness);
    }
}

#[inline(always)]
fn gate_values(out: &mut [f32], x: &[f32], factor: Option<&[f32]>, steepness: f32) {
    let gated = |x: f32| x / (1.0 + exp(-steepness * x));
    match factor {
        Some(factor) => {
            for ((out, &x), &factor) in out.iter_mut().zip(x).zip(factor) {
                *out = gated(x) * factor;
            }
        }
        None => out.iter_mut().zip(x).for_each(|(out, &x)| *out = gated(x)),
    }
}

#[derive(Debug, Clone)]
struct GateBack {
    x: FlexTensor,
    up: FlexTensor,
}

impl Derivative<2> for GateBack {
    fn gradients(self, gradient: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let shape = self.x.layout().shape().clone();
        let [x, up, gradient] = [self.x, self.up, gradient].map(in_rows);
        let [x, up, gradient]: [&[f32]; 3] = [&x, &up, &gradient].map(FlexTensor::storage);
        let mut for_x = zeros(x.len());
        let mut for_up = zeros(x.len());
        let worth_it = x.len() > PARALLEL;
        let arch = pulp::Arch::new();
        each_two_chunks((&mut for_x, CHUNK), (&mut for_up, CHUNK), worth_it, |(index, (for_x, for_up))| {
            let part = index * CHUNK..index * CHUNK + for_x.len();
            let (x, up, gradient) = (&x[part.clone()], &up[part.clone()], &gradient[part]);
            arch.dispatch(GateValuesBack { for_x, for_up, x, up, gradient });
        });
        [for_x, for_up].map(|values| Some(FlexTensor::from_data(TensorData::new(values, shape.clone()))))
    }
}

/// With `s = sigmoid(x)`: `g up s (1 + x (1 - s))` for x, and `g x s` for up.
struct GateValuesBack<'a> {
    for_x: &'a mut [f32],
    for_up: &'a mut [f32],
    x: &'a [f32],
    up: &'a [f32],
    gradient: &'a [f32],
}

impl WithSimd for GateValuesBack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { for_x, for_up, x, up, gradient } = self;
        let outputs = for_x.iter_mut().zip(for_up);
        for ((for_x, for_up), ((&x, &up), &gradient)) in outputs.zip(x.iter().zip(up).zip(gradient)) {
            let sigmoid = 1.0 / (1.0 + exp(-x));
            *for_x = gradient * up * sigmoid * (1.0 + x * (1.0 - sigmoid));
            *for_up = gradient * x * sigmoid;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::sigmoid;

    use super::super::tests::{close, gradients_agree, random};
    use super::*;

    #[test]
    fn equal_the_written_out_forms() {
        for len in [1, 17, 70_001] {
            let (x, up) = (random([1, len], 1) * 10.0, random([1, len], 2));
            close(&quick_gelu(&x).expect("flex"), &(x.clone() * sigmoid(x.clone() * 1.702)));
            close(&silu(&x).expect("flex"), &(x.clone() * sigmoid(x.clone())));
            close(&silu_gate(&x, &up).expect("flex"), &(x.clone() * sigmoid(x.clone()) * up));
        }
    }

    /// Transposed views are read in the order that they are seen in.
    #[test]
    fn views_are_followed() {
        let x = random([3, 5], 3);
        close(&silu(&x.clone().transpose()).expect("flex"), &silu(&x).expect("flex").transpose());
    }

    #[test]
    fn gradients_are_those_of_the_written_out_form() {
        for len in [1, 17, 70_001] {
            gradients_agree(
                [random([1, len], 1), random([1, len], 2)],
                |[x, up]| silu_gate(&x, &up).expect("flex in f32"),
                |[x, up]| x.clone() * sigmoid(x) * up,
            );
        }
    }
}
