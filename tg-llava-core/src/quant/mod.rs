//! Weights in fewer bits than a float: the arithmetic of the formats, over plain slices.
//!
//! [`bnb`] has those of bitsandbytes, [`ggml`] the block formats of llama.cpp, as GGUF files hold them. A [`QuantMatrix`] is a matrix in
//! memory, with its bytes as in the file; [`nn::Matrix`](crate::nn::Matrix) puts it in the place of a parameter.

pub mod bnb;
pub mod ggml;
mod matrix;
mod scheme;
mod site;

pub use matrix::{Activations, GgmlMatrix, QuantMatrix, WrongLength};
pub use scheme::{Choice, Scheme};
pub use site::MatrixSite;
