//! The block formats of GGML: what their bytes mean, and how values become such bytes.
//!
//! A row is cut into blocks of 32 or 256 values. A row that is no whole number of blocks is filled with zeros behind its
//! last value; GGUF files know no such rows.

mod activations;
mod block;
mod float;
mod format;
mod k_quants;
mod lanes;
mod legacy;
mod rows;
mod search;
#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod tests;
mod words;

pub use activations::{GROUP, Int8Group, Int8Row};
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub(crate) use block::array;
pub use block::{Block, Bytes, Part, all_halves};
pub use format::GgmlType;
#[cfg_attr(not(feature = "flex"), expect(unused_imports, reason = "for the kernels"))]
pub(crate) use format::with_block;
pub use k_quants::{Q4K, Q5K, Q6K};
pub use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub use rows::{dequantise, dot_int8, quantise, quantise_into};
pub use words::{ScaleWords, WordLayout, Words};
