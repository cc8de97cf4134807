//! What is shown while a run goes on, and how it is ended.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use burn::train::Interrupter;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};
use tg_llava_train::log::{EvalRecord, StepRecord, progress_line};
use tg_llava_train::run::Observer;

use super::TrainArgs;
use crate::console::{Console, print_json};

/// Ctrl-C ends the run after the step under way; a second one ends the program at once.
pub(super) fn listen(interrupter: &Interrupter, console: &Console) {
    let (interrupter, console) = (interrupter.clone(), *console);
    let presses = AtomicUsize::new(0);
    let handler = move || {
        if presses.fetch_add(1, SeqCst) > 0 {
            std::process::exit(130);
        }
        console.say("stopping after this step; Ctrl-C again stops at once, without saving");
        interrupter.stop(Some("Ctrl-C"));
    };
    // Where the system refuses, Ctrl-C ends the program as usual; checkpoints are whole at any moment.
    let _ = ctrlc::set_handler(handler);
}

/// Whether burn-train's terminal view is drawn.
fn draws(args: &TrainArgs, console: &Console) -> bool {
    let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    cfg!(feature = "tui") && terminal && !args.plain && !console.json && !args.output.quiet
}

/// burn-train's view on a terminal, and nothing elsewhere: there the observer prints lines.
pub(super) fn renderer(
    args: &TrainArgs,
    console: &Console,
    interrupter: &Interrupter,
) -> Box<dyn MetricsRenderer> {
    #[cfg(feature = "tui")]
    if draws(args, console) {
        use burn::train::renderer::tui::TuiMetricsRendererWrapper;
        return Box::new(TuiMetricsRendererWrapper::new(interrupter.clone(), None));
    }
    let _ = (args, console, interrupter);
    Box::new(NoRenderer)
}

/// Prints a line a step, unless the terminal view shows them.
pub(super) fn observer(args: &TrainArgs, console: &Console) -> Box<dyn Observer + Send> {
    Box::new(Lines { console: *console, silent: draws(args, console), start: None, notes: Vec::new() })
}

struct Lines {
    console: Console,
    silent: bool,
    start: Option<(std::time::Instant, usize)>,
    /// What came while the terminal view was up; told afterwards.
    notes: Vec<String>,
}

impl Observer for Lines {
    fn step(&mut self, record: &StepRecord, (done, total): (usize, usize)) {
        let (start, first) = *self.start.get_or_insert_with(|| (std::time::Instant::now(), done));
        let made = done - first;
        let eta = (made > 0).then(|| start.elapsed().div_f64(made as f64).mul_f64((total - done) as f64));
        if self.console.json {
            // Whoever closed the output has seen enough; the run goes on.
            let _ = print_json(record, false);
        } else if !self.silent {
            self.console.note(progress_line(record, total, eta));
        }
    }

    fn evaluated(&mut self, record: &EvalRecord) {
        let exact =
            record.exact_match.map_or(String::new(), |share| format!(", {:.2} % right", 100.0 * share));
        let text = format!(
            "step {}: validation loss {:.4}{exact} on {} samples",
            record.step, record.loss, record.samples
        );
        self.note(&text);
    }

    fn note(&mut self, text: &str) {
        match self.silent {
            true => self.notes.push(text.to_owned()),
            false => self.console.note(text),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.notes.iter().for_each(|note| self.console.note(note));
    }
}

/// Shows nothing.
struct NoRenderer;

impl MetricsRendererTraining for NoRenderer {
    fn update_train(&mut self, _state: MetricState) {}
    fn update_valid(&mut self, _state: MetricState) {}
}

impl MetricsRendererEvaluation for NoRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl TrainingProgressLogger for NoRenderer {
    fn start(&mut self, _epochs: usize, _first: usize, _items: Option<usize>, _label: Option<&str>) {}
    fn update_epoch(&mut self, _epoch: usize) {}
    fn start_split(&mut self, _name: &str, _items: usize) {}
    fn update_split(&mut self, _items: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _event: String) {}
}

impl EvaluationProgressLogger for NoRenderer {
    fn start_global_progress(&mut self, _tests: usize) {}
    fn start_test(&mut self, _name: &str, _items: usize) {}
    fn update_test_progress(&mut self, _items: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for NoRenderer {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _definition: MetricDefinition) {}
}
