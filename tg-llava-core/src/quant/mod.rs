//! Quantised weights: matrices whose values are stored as small integers with scales.
//!
//! [`ggml`] has the block formats of llama.cpp, as GGUF files hold them, [`bnb`] those of bitsandbytes. A [`QuantMatrix`] is a matrix in
//! memory, with its bytes as in the file, or in words on a GPU ([`PackedMatrix`]); [`nn::Matrix`](crate::nn::Matrix) puts it in the place of a parameter.

pub mod bnb;
pub mod ggml;
mod matrix;
mod packed;
mod scheme;
mod site;

pub use matrix::{Activations, FourBitMatrix, GgmlMatrix, QuantMatrix, WrongLength};
pub use packed::{PackedMatrix, PackedProducts, use_packed_products};
pub use scheme::{Choice, Scheme};
pub use site::MatrixSite;
