//! GPUs as ranks: [`Collective`](tg_llava_train::parallel::Collective) over NCCL, one process a GPU.
//!
//! NCCL is loaded when it is asked for, as `libnccl.so`. Calls go onto the stream that Burn computes on, so that they need no events
//! and memory pools know nothing of them.

#[cfg(feature = "cuda")]
mod buffer;
#[cfg(feature = "cuda")]
mod clock;
#[cfg(feature = "cuda")]
mod communicator;
#[cfg(feature = "cuda")]
mod group;
mod handshake;
mod rendezvous;

#[cfg(feature = "cuda")]
pub use group::{Nccl, NcclAbort};
pub use rendezvous::Rendezvous;
