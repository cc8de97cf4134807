//! Training TG-LLaVA: configuration, data, the engine, checkpoints and logs.

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod engine;
pub mod log;
pub mod optim;
pub mod prepare;
pub mod run;
pub mod schedule;
pub mod start;
