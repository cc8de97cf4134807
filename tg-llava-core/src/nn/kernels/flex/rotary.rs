use burn::tensor::{DType, Tensor};

use super::{PARALLEL, Wrapper, each_chunk, in_rows, rows_of};

/// `x * cos + rotate_half(x) * sin`, read from any view of rows and written in order.
///
/// # Shapes
/// - x: `[batch, num_heads, len, head_dim]`, output the same
/// - cos, sin: `[batch or 1, 1, len, head_dim]`
pub(crate) fn rotate(x: &Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Option<Tensor<4>> {
    let wrapper = Wrapper::of(x)?;
    let [batch, heads, len, width] = x.dims();
    let tables_per_sample = cos.dims()[0] > 1;
    let [cos, sin] = [rows_of(cos)?, rows_of(sin)?];
    let (cos, sin): (&[f32], &[f32]) = (cos.storage(), sin.storage());
    let mut source = wrapper.strip(x.clone())?;
    let in_f32 = source.dtype() == DType::F32;
    if !in_f32
        || source.layout().strides()[3] != 1
        || source.layout().strides().iter().any(|&stride| stride < 0)
    {
        source = in_rows(source);
    }
    let strides: Vec<usize> = source.layout().strides().iter().map(|&stride| stride as usize).collect();
    let start = source.layout().start_offset();
    let read: &[f32] = source.storage();
    let mut values = vec![0.0f32; batch * heads * len * width];
    if values.is_empty() {
        return None;
    }
    // One task a head of a sample.
    let task = |(index, out): (usize, &mut [f32])| {
        let (sample, head) = (index / heads, index % heads);
        let table = if tables_per_sample { sample * len * width } else { 0 };
        for (position, out) in out.chunks_exact_mut(width).enumerate() {
            let from = start + sample * strides[0] + head * strides[1] + position * strides[2];
            let at = table + position * width;
            rotate_row(out, &read[from..from + width], &cos[at..at + width], &sin[at..at + width]);
        }
    };
    let worth_it = values.len() > PARALLEL;
    each_chunk(&mut values, len * width, worth_it, task);
    Some(wrapper.wrap(super::tensor(values, [batch, heads, len, width])))
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

#[cfg(test)]
mod tests {
    use super::super::tests::{close, random};
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
}
