//! What only CUDA has: GPUs as ranks over NCCL, and products by cuBLASLt.
//!
//! Both libraries are loaded at run time, and reach the memory behind Burn's tensors on the stream that Burn computes on; that follows the
//! versions of Burn and CubeCL that the workspace pins.
//!
//! All `unsafe` of the workspace's GPU side is in `nccl::communicator`, `nccl::clock` and `products::library`. Without the feature `cuda`
//! there is what needs no GPU: how ranks meet, how matrices are described to cuBLASLt, and the gradient of a product.

#![warn(clippy::undocumented_unsafe_blocks)]

#[cfg(feature = "cuda")]
mod device;
pub mod nccl;
pub mod products;
