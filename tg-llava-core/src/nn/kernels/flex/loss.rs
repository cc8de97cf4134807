use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::recorded::{self, Derivative, Input};
use super::{PARALLEL, each_chunk, exp::exp, in_rows, reduce};

/// The sum of `log(sum(exp(logits))) - logits[token]` over the rows, recorded; `None` where no gradient is wanted.
///
/// # Shapes
/// - logits: `[rows, vocab_size]`, output `[1]`
/// - tokens: one a row
pub(crate) fn cross_entropy_sum(logits: &Tensor<2>, tokens: &[i64]) -> Option<Tensor<1>> {
    let inputs = recorded::inputs([Input::of(logits)])?;
    let [rows, width] = logits.dims();
    let tokens: Vec<usize> =
        tokens.iter().map(|&token| usize::try_from(token).ok()).collect::<Option<_>>()?;
    if width == 0 || tokens.len() != rows || tokens.iter().any(|&token| token >= width) {
        return None;
    }
    let [opened] = inputs.each_ref().map(|input| in_rows(input.values()));
    let values: &[f32] = opened.storage();
    let arch = pulp::Arch::new();
    let logs: Vec<f32> = match values.len() > PARALLEL {
        true => values.par_chunks_exact(width).map(|row| arch.dispatch(LogSumExp(row))).collect(),
        false => values.chunks_exact(width).map(|row| arch.dispatch(LogSumExp(row))).collect(),
    };
    let rows = values.chunks_exact(width).zip(&tokens);
    let sum: f64 = rows.zip(&logs).map(|((row, &token), log)| f64::from(log - row[token])).sum();
    let output = super::tensor(vec![sum as f32], [1]);
    recorded::record(inputs, Back { logits: opened, tokens, logs }, Tensor::from_primitive::<Flex>(output))
}

/// The logarithm of the sum of exponentials.
struct LogSumExp<'a>(&'a [f32]);

impl WithSimd for LogSumExp<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let Self(row) = self;
        let max = reduce::max(simd, row);
        let mut room = [0.0; 256];
        let mut sum = 0.0;
        for part in row.chunks(room.len()) {
            let room = &mut room[..part.len()];
            for (out, value) in room.iter_mut().zip(part) {
                *out = exp(value - max);
            }
            sum += reduce::sum(simd, room);
        }
        max + sum.ln()
    }
}

#[derive(Debug, Clone)]
struct Back {
    logits: FlexTensor,
    tokens: Vec<usize>,
    /// Of each row.
    logs: Vec<f32>,
}

impl Derivative<1> for Back {
    fn gradients(self, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let Self { mut logits, tokens, logs } = self;
        let gradient = in_rows(gradient).storage::<f32>()[0];
        let width = logits.layout().shape()[1];
        // Nobody needs the logits any more, so they are overwritten.
        let values: &mut [f32] = logits.storage_mut();
        let worth_it = values.len() > PARALLEL;
        let arch = pulp::Arch::new();
        each_chunk(values, width, worth_it, |(row, values)| {
            arch.dispatch(Probabilities { values, log: logs[row], factor: gradient });
            values[tokens[row]] -= gradient;
        });
        [Some(logits)]
    }
}

/// Logits to `factor * exp(logit - log)`.
struct Probabilities<'a> {
    values: &'a mut [f32],
    log: f32,
    factor: f32,
}

impl WithSimd for Probabilities<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { values, log, factor } = self;
        values.iter_mut().for_each(|value| *value = factor * exp(*value - log));
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Int, TensorData, activation::log_softmax};

    use super::super::tests::{gradients_agree, random};
    use super::*;

    fn written_out(logits: Tensor<2>, tokens: &[i64]) -> Tensor<1> {
        let places = TensorData::new(tokens.to_vec(), [tokens.len(), 1]);
        let places: Tensor<2, Int> = Tensor::from_data(places, &logits.device());
        log_softmax(logits, 1).gather(1, places).sum().neg()
    }

    #[test]
    fn gradients_are_those_of_the_written_out_form() {
        for (rows, width) in [(1, 1), (3, 40), (9, 5_003)] {
            let tokens: Vec<i64> = (0..rows as i64).map(|row| row * 7919 % width as i64).collect();
            gradients_agree(
                [random([rows, width], 1)],
                |[logits]| {
                    let recorded = cross_entropy_sum(&logits, &tokens);
                    // Without a graph there is nothing to do here.
                    recorded.unwrap_or_else(|| written_out(logits, &tokens))
                },
                |[logits]| written_out(logits, &tokens),
            );
        }
    }

    #[test]
    fn a_token_that_is_none_is_left_to_others() {
        let logits = Tensor::from_inner(random([2, 5], 1)).require_grad();
        for tokens in [vec![0], vec![0, 5], vec![-1, 0]] {
            assert!(cross_entropy_sum(&logits, &tokens).is_none());
        }
    }
}
