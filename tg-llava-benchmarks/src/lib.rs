//! Public benchmarks as text: from the rows of a data set to prompts, and from answers to verdicts and scores.
//!
//! No model and no picture is needed here. Prompts, verdicts and scores are those of VLMEvalKit (commit e8e78f05); [`llava`] has those of
//! LLaVA-1.5's scripts.

pub mod dataset;
pub mod headline;
pub mod judge;
pub mod llava;
pub mod prompt;
pub mod report;
pub mod score;
pub mod table;
mod text;
