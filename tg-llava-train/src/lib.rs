//! Training TG-LLaVA: data, sampling and schedules.

pub mod data;
pub mod schedule;
