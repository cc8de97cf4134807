//! Products of matrices in bf16 by AMX, the matrix registers of Intel's server processors since 2023. Stable Rust has neither intrinsics for
//! them nor can `gemm` or `pulp` reach them; all `unsafe` code of the CPU side is in this crate.
//!
//! Where there is no AMX, [`Tiles::detect`] says so, on any processor and system.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod none;
mod packed;
mod prefetch;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use amx::Tiles;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub use none::Tiles;
pub use packed::{PackedColumns, PackedRows};
pub use prefetch::prefetch;
