//! A build without kernels: none applies.

use std::ops::{ControlFlow, Range};

use burn::tensor::{DType, Tensor};

use crate::quant::QuantMatrix;
use crate::quant::ggml::{self, GgmlType};

pub(crate) fn among_workers<T>(_: &Tensor<1>, task: impl FnOnce() -> T) -> T {
    task()
}

pub(crate) fn join<A, B, const D: usize>(
    _: &Tensor<D>,
    a: impl FnOnce() -> A,
    b: impl FnOnce() -> B,
) -> (A, B) {
    (a(), b())
}

pub(crate) fn cast<const D: usize>(_: &Tensor<D>, _: DType) -> Option<Tensor<D>> {
    None
}

pub(crate) fn linear<const D: usize>(
    _: &Tensor<D>,
    _: &Tensor<2>,
    _: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    None
}

pub(crate) fn linear_against<const D: usize>(
    _: &Tensor<D>,
    _: &Tensor<2>,
    _: &Tensor<D>,
) -> Option<Tensor<1>> {
    None
}

pub(crate) fn attention(
    _: &Tensor<4>,
    _: &Tensor<4>,
    _: &Tensor<4>,
    _: Option<&Tensor<4>>,
) -> Option<Tensor<4>> {
    None
}

pub(crate) fn cross_entropy_sum(_: &Tensor<2>, _: &[i64]) -> Option<Tensor<1>> {
    None
}

pub(crate) fn add<const D: usize>(_: &Tensor<D>, _: &Tensor<D>) -> Option<Tensor<D>> {
    None
}

pub(crate) fn attend_newest(_: &Tensor<4>, _: &[(Tensor<4>, Tensor<4>, usize)]) -> Option<Tensor<4>> {
    None
}

pub(crate) fn rows_alike(_: &Tensor<2>) -> Option<crate::nn::RowsAlike> {
    None
}

pub(crate) fn quick_gelu<const D: usize>(_: &Tensor<D>) -> Option<Tensor<D>> {
    None
}

pub(crate) fn silu<const D: usize>(_: &Tensor<D>) -> Option<Tensor<D>> {
    None
}

pub(crate) fn silu_gate<const D: usize>(_: &Tensor<D>, _: &Tensor<D>) -> Option<Tensor<D>> {
    None
}

pub(crate) fn rms_norm<const D: usize>(_: &Tensor<D>, _: &Tensor<1>, _: f32) -> Option<Tensor<D>> {
    None
}

pub(crate) fn rotate(_: &Tensor<4>, _: &Tensor<4>, _: &Tensor<4>) -> Option<Tensor<4>> {
    None
}

pub(crate) fn softmax(scores: Tensor<4>, _: Option<&Tensor<4>>) -> ControlFlow<Tensor<4>, Tensor<4>> {
    ControlFlow::Continue(scores)
}

pub(crate) fn quantised_matvec<const D: usize>(
    _: &Tensor<D>,
    _: &QuantMatrix,
    _: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    None
}

pub(crate) fn quantised_rows_alike(_: &QuantMatrix, _: usize) -> Option<crate::nn::RowsAlike> {
    None
}

pub(crate) fn dequantise_rows(matrix: &QuantMatrix, rows: Range<usize>, out: &mut [f32]) {
    matrix.dequantise_rows(rows, out);
}

pub(crate) fn quantise(format: GgmlType, values: &[f32], row_len: usize) -> Vec<u8> {
    ggml::quantise(format, values, row_len)
}
