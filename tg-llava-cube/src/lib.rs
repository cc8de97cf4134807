//! Products with quantised matrices on GPUs: the kernels behind [`PackedProducts`](tg_llava_core::quant::PackedProducts), for every
//! backend of Burn that CubeCL computes for.
//!
//! A program puts `CubeProducts` in place before it loads weights. Without one of the features `cuda`, `vulkan` and `wgpu` there is nothing
//! in here.

#[cfg(feature = "kernels")]
mod kernels;
#[cfg(feature = "kernels")]
mod operations;
#[cfg(feature = "kernels")]
mod products;

#[cfg(feature = "kernels")]
pub use products::CubeProducts;
