//! Whoever watches a run.

use crate::log::{EvalRecord, StepRecord};

/// Is told of everything that happens in a run, and may end it.
pub trait Observer {
    /// An optimizer step was made; `progress` is the steps done and all steps.
    fn step(&mut self, record: &StepRecord, progress: (usize, usize));
    /// The model was checked on held-out samples.
    fn evaluated(&mut self, record: &EvalRecord);
    /// Something to tell in words.
    fn note(&mut self, text: &str);
    /// Whether the run shall end after the step that is under way.
    fn should_stop(&mut self) -> bool {
        false
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn step(&mut self, _record: &StepRecord, _progress: (usize, usize)) {}
    fn evaluated(&mut self, _record: &EvalRecord) {}
    fn note(&mut self, _text: &str) {}
}
