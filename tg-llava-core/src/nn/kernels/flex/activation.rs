use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::{PARALLEL, Wrapper, each_chunk, exp::exp, in_rows, rows_of};

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

/// `silu(x) * up`.
pub(crate) fn silu_gate<const D: usize>(x: &Tensor<D>, up: &Tensor<D>) -> Option<Tensor<D>> {
    gate(x, Some(up), 1.0)
}

/// `x * sigmoid(steepness x) [* factor]`.
fn gate<const D: usize>(x: &Tensor<D>, factor: Option<&Tensor<D>>, steepness: f32) -> Option<Tensor<D>> {
    let wrapper = Wrapper::of(x)?;
    let factor = match factor {
        Some(factor) => Some(rows_of(factor)?),
        None => None,
    };
    let source = in_rows(wrapper.strip(x.clone())?);
    let source_values: &[f32] = source.storage();
    let factors: Option<&[f32]> = factor.as_ref().map(|factor| factor.storage());
    let mut values = vec![0.0f32; source_values.len()];
    let arch = pulp::Arch::new();
    let task = |(index, out): (usize, &mut [f32])| {
        let start = index * CHUNK;
        let x = &source_values[start..start + out.len()];
        let factor = factors.map(|factors| &factors[start..start + out.len()]);
        arch.dispatch(Gate { out, x, factor, steepness });
    };
    let worth_it = values.len() > PARALLEL;
    each_chunk(&mut values, CHUNK, worth_it, task);
    Some(wrapper.wrap(super::tensor(values, x.dims())))
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

#[cfg(test)]
mod tests {
    use burn::tensor::activation::sigmoid;

    use super::super::tests::{close, random};
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
}
