//! One module a command.

pub mod bench;
pub mod chat;
pub mod completions;
pub mod convert;
pub mod data;
pub mod eval;
pub mod fetch;
pub mod inspect;
pub mod merge;
pub mod parity;
pub mod report;
pub mod score;
pub mod serve;
pub mod train;
