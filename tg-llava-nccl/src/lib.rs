//! GPUs as ranks: [`Collective`](tg_llava_train::parallel::Collective) over NCCL, one process a GPU.
//!
//! NCCL is loaded when it is asked for, as `libnccl.so`. Calls go onto the stream that Burn computes on, so that they need no events
//! and memory pools know nothing of them; that follows the versions of Burn and CubeCL that the workspace pins.
//!
//! All `unsafe` of the workspace's GPU side is in `communicator` and `clock`, and without the feature `cuda` there is the [`Rendezvous`] alone.

#![warn(clippy::undocumented_unsafe_blocks)]

#[cfg(feature = "cuda")]
mod buffer;
#[cfg(feature = "cuda")]
mod clock;
#[cfg(feature = "cuda")]
mod communicator;
mod handshake;
#[cfg(feature = "cuda")]
mod nccl;
mod rendezvous;

#[cfg(feature = "cuda")]
pub use nccl::{Nccl, NcclAbort};
pub use rendezvous::Rendezvous;
