//! Lengths of gradients that do not depend on threads, nor on who holds which part.

use burn::tensor::{DType, Tensor};
use tg_llava_core::Error;
use tg_llava_core::nn::cast_to;

use crate::parallel::ROW;

/// The sums of squares of rows of 4,096 values, the last filled up with zeros. Added in f64 in their order they are the square of the
/// whole's length. (A sum over millions of values in one go follows the threads on flex.)
///
/// # Shapes
/// - values: `[count]`
/// - output: `[ceil(count / 4096)]`
pub fn squares(values: &Tensor<1>) -> Tensor<1> {
    let values = &cast_to(values.clone(), DType::F32);
    let count = values.dims()[0];
    let (rows, rest) = (count / ROW, count % ROW);
    let sums = |part: Tensor<1>, rows: usize| part.reshape([rows, ROW]).square().sum_dim(1).reshape([rows]);
    if rest == 0 {
        return sums(values.clone(), rows);
    }
    let last = values.clone().narrow(0, rows * ROW, rest);
    let zeros = Tensor::zeros([ROW - rest], (&values.device(), values.dtype()));
    let last = sums(Tensor::cat(vec![last, zeros], 0), 1);
    match rows {
        0 => last,
        _ => Tensor::cat(vec![sums(values.clone().narrow(0, 0, rows * ROW), rows), last], 0),
    }
}

/// The values of some tensors, one after the other.
///
/// # Errors
/// [`Error::Request`] where the device could not compute them.
pub fn read(tensors: Vec<Tensor<1>>) -> Result<Vec<f32>, Error> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let values = Tensor::cat(tensors, 0).try_into_vec_as::<f32>();
    values.map_err(|e| Error::Request(format!("the device could not compute the gradients: {e}")))
}
