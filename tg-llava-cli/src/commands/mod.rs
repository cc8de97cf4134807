//! One module a command.

pub mod chat;
pub mod completions;
pub mod inspect;
pub mod parity;
