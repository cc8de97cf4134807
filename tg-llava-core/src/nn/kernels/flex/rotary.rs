use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;

use super::recorded::{self, Derivative, Input};
use super::{PARALLEL, Wrapper, each_chunk, in_rows, rows_of, zeros};

/// `x * cos + rotate_half(x) * sin`, read from any view of rows and written in order; recorded where a gradient is wanted.
///
/// # Shapes
/// - x: `[batch, num_heads, len, head_dim]`, output the same
/// - cos, sin: `[batch or 1, 1, len, head_dim]`
pub(crate) fn rotate(x: &Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Option<Tensor<4>> {
    if let Some(inputs) = recorded::inputs([Input::of(x)]) {
        let output = rotate(&x.clone().inner(), cos, sin)?;
        let per_sample = cos.dims()[0] > 1;
        let back = Back { cos: rows_of(cos)?, sin: rows_of(sin)?, per_sample };
        return recorded::record(inputs, back, output);
    }
    let wrapper = Wrapper::of(x)?;
    let [batch, heads, len, width] = x.dims();
    let tables_per_sample = cos.dims()[0] > 1;
    let [cos, sin] = [rows_of(cos)?, rows_of(sin)?];
    let (cos, sin): (&[f32], &[f32]) = (cos.storage(), sin.storage());
    let source = Lines::of(wrapper.strip(x.clone())?);
    let mut values = zeros(batch * heads * len * width);
    if values.is_empty() {
        return None;
    }
    // One task a head of a sample.
    let task = |(index, out): (usize, &mut [f32])| {
        let (sample, head) = (index / heads, index % heads);
        let table = if tables_per_sample { sample * len * width } else { 0 };
        for (position, out) in out.chunks_exact_mut(width).enumerate() {
            let at = table + position * width;
            let line = source.line([sample, head, position], width);
            rotate_row(out, line, &cos[at..at + width], &sin[at..at + width]);
        }
    };
    let worth_it = values.len() > PARALLEL;
    each_chunk(&mut values, len * width, worth_it, task);
    Some(wrapper.wrap(super::tensor(values, [batch, heads, len, width])))
}

/// Values of any layout whose last axis lies in one piece.
struct Lines {
    tensor: FlexTensor,
    strides: [usize; 3],
}

impl Lines {
    fn of(mut tensor: FlexTensor) -> Self {
        let strides = tensor.layout().strides();
        if tensor.dtype() != DType::F32 || strides[3] != 1 || strides.iter().any(|&stride| stride < 0) {
            tensor = in_rows(tensor);
        }
        let strides = tensor.layout().strides();
        let strides = [0, 1, 2].map(|axis| strides[axis] as usize);
        Self { tensor, strides }
    }

    fn line(&self, [sample, head, position]: [usize; 3], width: usize) -> &[f32] {
        let [per_sample, per_head, per_position] = self.strides;
        let start = self.tensor.layout().start_offset();
        let from = start + sample * per_sample + head * per_head + position * per_position;
        &self.tensor.storage()[from..from + width]
    }
}

fn rotate_row(out: &mut [f32], row: &[f32], cos: &[f32], sin: &[f32]) {
    let half = row.len() / 2;
    let (low, high) = row.split_at(half);
    let (out_low, out_high) = out.split_at_mut(half);
    for i in 0..half {
        out_low[i] = low[i] * cos[i] - high[i] * sin[i];
        out_high[i] = high[i] * cos[half + i] + low[i] * sin[half + i];
    }
}

/// Tokens that one task turns back.
const TOKENS: usize = 16;

#[derive(Debug, Clone)]
struct Back {
    cos: FlexTensor,
    sin: FlexTensor,
    per_sample: bool,
}

/// The transposed rotation. What it gives lies in memory as `[batch, len, num_heads, head_dim]`, as the layer had it before its heads were
/// split.
impl Derivative<1> for Back {
    fn gradients(self, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let shape = gradient.layout().shape();
        let [batch, heads, len, width] = [0, 1, 2, 3].map(|axis| shape[axis]);
        let (cos, sin): (&[f32], &[f32]) = (self.cos.storage(), self.sin.storage());
        let gradient = Lines::of(gradient);
        let mut values = zeros(batch * len * heads * width);
        let worth_it = values.len() > PARALLEL;
        each_chunk(&mut values, TOKENS * heads * width, worth_it, |(index, out)| {
            for (token, out) in out.chunks_exact_mut(heads * width).enumerate() {
                let token = index * TOKENS + token;
                let (sample, position) = (token / len, token % len);
                let at = if self.per_sample { token } else { position } * width;
                let (cos, sin) = (&cos[at..at + width], &sin[at..at + width]);
                for (head, out) in out.chunks_exact_mut(width).enumerate() {
                    rotate_row_back(out, gradient.line([sample, head, position], width), cos, sin);
                }
            }
        });
        let values = super::tensor(values, [batch, len, heads, width]);
        let layout = values.layout().transpose(1, 2);
        [Some(values.with_layout(layout))]
    }
}

fn rotate_row_back(out: &mut [f32], row: &[f32], cos: &[f32], sin: &[f32]) {
    let half = row.len() / 2;
    let (low, high) = row.split_at(half);
    let (out_low, out_high) = out.split_at_mut(half);
    for i in 0..half {
        out_low[i] = low[i] * cos[i] + high[i] * sin[half + i];
        out_high[i] = high[i] * cos[half + i] - low[i] * sin[i];
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, gradients_agree, random};
    use super::*;

    #[test]
    fn equals_the_written_out_form() {
        for (tables, len) in [(1, 1), (2, 5), (1, 90)] {
            let x = random([2, len, 9, 8], 1).swap_dims(1, 2);
            let (cos, sin) = (random([tables, 1, len, 8], 2), random([tables, 1, len, 8], 3));
            let rotated = Tensor::cat(vec![x.clone().narrow(3, 4, 4).neg(), x.clone().narrow(3, 0, 4)], 3);
            let expected = x.clone() * cos.clone() + rotated * sin.clone();
            close(&rotate(&x, &cos, &sin).expect("flex"), &expected);
        }
    }

    #[test]
    fn gradients_are_those_of_the_written_out_form() {
        for (tables, len) in [(1, 1), (2, 5), (1, 90)] {
            let (cos, sin) = (random([tables, 1, len, 8], 2), random([tables, 1, len, 8], 3));
            // On the device of what is rotated.
            let like = |table: &Tensor<4>, x: &Tensor<4>| Tensor::from_data(table.to_data(), &x.device());
            gradients_agree(
                [random([2, len, 9, 8], 1)],
                |[x]| {
                    let (cos, sin) = (like(&cos, &x), like(&sin, &x));
                    rotate(&x.swap_dims(1, 2), &cos, &sin).expect("flex in f32")
                },
                |[x]| {
                    let (cos, sin, x) = (like(&cos, &x), like(&sin, &x), x.swap_dims(1, 2));
                    let halves = vec![x.clone().narrow(3, 4, 4).neg(), x.clone().narrow(3, 0, 4)];
                    x * cos + Tensor::cat(halves, 3) * sin
                },
            );
        }
    }
}
