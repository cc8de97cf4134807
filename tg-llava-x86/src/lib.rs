//! What x86 processors have and `pulp` does not reach; all `unsafe` code of the CPU side is in this crate.
//!
//! - Products of matrices in bf16 by AMX, the matrix registers of Intel's server processors since 2023, for which stable Rust has no intrinsics:
//!   [`Tiles`]. Where there is no AMX, [`Tiles::detect`] says so, on any processor and system.
//! - Products of bytes by AVX-512 VNNI, on x86-64: `Vnni`.
//! - Hints to the caches: [`prefetch`].

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod none;
mod packed;
mod prefetch;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use amx::Tiles;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub use none::Tiles;
pub use packed::{PackedColumns, PackedRows};
pub use prefetch::prefetch;
#[cfg(target_arch = "x86_64")]
pub use vnni::Vnni;
