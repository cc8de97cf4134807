//! Ranks that train one model together: each on its own micro-batches, each the owner of a slice of the optimizer's state.
//!
//! Every rank calls the same collectives in the same order; whatever decides that order comes from bytes that all of them have
//! exchanged. How the bytes travel is behind [`Collective`].

mod agree;
mod check;
mod collective;
mod environment;
mod error;
mod layout;
mod local;
#[cfg(feature = "mpi")]
mod mpi;
mod simulated;
mod single;
pub mod watch;
mod world;

pub use agree::{agree, together};
pub use check::{CheckSize, check};
pub use collective::Collective;
pub use environment::{EnvironmentError, Launcher, Placement};
pub use error::ParallelError;
pub use layout::{ROW, ShardLayout};
pub use local::Local;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use simulated::{Sent, Simulated, Traffic};
pub use single::Single;
pub use world::World;
