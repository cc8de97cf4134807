//! What x86 processors have and `pulp` does not reach; all `unsafe` code of the CPU side is in this crate.
//!
//! - Products of matrices in bf16 by AMX, the matrix registers of Intel's server processors since 2023, for which stable Rust has no intrinsics:
//!   [`Tiles`]. Where there is no AMX, [`Tiles::detect`] says so, on any processor and system.
//! - Products of bytes by AVX-512 VNNI, and of pairs of bf16 by AVX-512 BF16, on x86-64: `Vnni`, `Bf16Pairs`.
//! - Hints to the caches: [`prefetch`].

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod none;
mod packed;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod prefetch;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(target_arch = "x86_64")]
mod with_v4;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use amx::Tiles;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub use none::Tiles;
pub use packed::{PackedColumns, PackedRows};
#[cfg(target_arch = "x86_64")]
pub use pairs::Bf16Pairs;
pub use prefetch::prefetch;
#[cfg(target_arch = "x86_64")]
pub use vnni::Vnni;
#[cfg(target_arch = "x86_64")]
use with_v4::with_v4;
