//! Products of linear layers by cuBLASLt, forwards and backwards, in place of Burn's kernels where it is faster.
//!
//! Burn 0.22.1's products on H100 class GPUs do not use the warp-group instructions (wgmma) that most of such a GPU's speed is behind;
//! NVIDIA's library does. It comes with CUDA and is loaded at run time; where it is missing, or slower, Burn computes as everywhere else.

mod choice;
#[cfg(feature = "cuda")]
mod cublaslt;
mod gradient;
mod layout;
#[cfg(feature = "cuda")]
mod library;

pub use choice::{Choice, Mode, measure};
#[cfg(feature = "cuda")]
pub use cublaslt::CublasLt;
pub use gradient::{Product, recorded};
pub use layout::{Operand, Plan, View};
