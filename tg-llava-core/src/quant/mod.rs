//! Quantised weights: matrices whose values are stored as small integers with scales.
//!
//! [`ggml`] has the block formats of llama.cpp, as GGUF files hold them, [`bnb`] those of bitsandbytes. A [`QuantMatrix`] is a matrix in
//! memory, with its bytes as in the file; [`nn::Matrix`](crate::nn::Matrix) puts it in the place of a parameter.

pub mod bnb;
pub mod ggml;
mod matrix;
mod scheme;
mod site;

pub use matrix::{Activations, FourBitMatrix, GgmlMatrix, QuantMatrix, WrongLength};
pub use scheme::{Choice, Scheme};
pub use site::MatrixSite;
