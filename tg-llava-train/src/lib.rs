//! Training TG-LLaVA: configuration, data, the engine, checkpoints and logs.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod engine;
pub mod learner;
pub mod log;
pub mod optim;
pub mod parallel;
pub mod run;
pub mod schedule;
pub mod start;
