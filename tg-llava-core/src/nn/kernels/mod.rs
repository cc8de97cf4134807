//! What some backend computes in one pass over memory instead of several.
//!
//! Each function says where it does not apply (another backend, another dtype, for some of them a tensor that gradients are
//! recorded for, a build without the kernels). The caller then writes the same out in Burn's operations, which is also what
//! defines it. Those that say that they are recorded have a backward step of their own, in f32.

#[cfg(feature = "flex")]
mod flex;
#[cfg(not(feature = "flex"))]
mod none;

#[cfg(feature = "flex")]
pub(super) use flex::{
    add, attend_newest, attention, cast, cross_entropy_sum, dequantise_rows, linear, linear_against,
    quantise, quantised_matvec, quantised_rows_alike, quick_gelu, rms_norm, rotate, rows_alike, silu,
    silu_gate, softmax,
};
#[cfg(feature = "flex")]
pub(crate) use flex::{among_workers, join};
#[cfg(not(feature = "flex"))]
pub(super) use none::{
    add, attend_newest, attention, cast, cross_entropy_sum, dequantise_rows, linear, linear_against,
    quantise, quantised_matvec, quantised_rows_alike, quick_gelu, rms_norm, rotate, rows_alike, silu,
    silu_gate, softmax,
};
#[cfg(not(feature = "flex"))]
pub(crate) use none::{among_workers, join};
