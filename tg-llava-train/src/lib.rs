//! Training TG-LLaVA: data, sampling, schedules and optimisation.

pub mod data;
pub mod engine;
pub mod optim;
pub mod schedule;
