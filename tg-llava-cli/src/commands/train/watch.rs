//! What is shown while a run goes on, and how it is ended.

use std::io::IsTerminal;

use burn::train::Interrupter;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};
use tg_llava_train::log::{EvalRecord, StepRecord, progress_line};
use tg_llava_train::run::Observer;

use super::TrainArgs;
use super::view::View;
use crate::console::{Console, print_json};
use crate::interrupt::{self, Request};

/// Who hears Ctrl-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CtrlC {
    /// This process.
    Here,
    /// The one that started it, which asks it to end by another signal: a terminal sends Ctrl-C to both.
    Launcher,
}

/// Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end the run after the step under way; a second Ctrl-C ends the program at once.
pub(super) fn listen(interrupter: &Interrupter, display: &Display, ctrl_c: CtrlC) {
    let (interrupter, display) = (interrupter.clone(), display.clone());
    let mut pressed = false;
    interrupt::listen(&[Request::Interrupt, Request::Terminate], move |request| {
        if request == Request::Interrupt && ctrl_c == CtrlC::Launcher {
            return;
        }
        if request == Request::Interrupt && std::mem::replace(&mut pressed, true) {
            display.leave();
            std::process::exit(interrupt::EXIT_CODE);
        }
        display.say("stopping after this step; Ctrl-C again stops at once, without saving");
        interrupter.stop(Some(match request {
            Request::Interrupt => "Ctrl-C",
            Request::Terminate => "the system",
        }));
    });
}

/// Where a run is shown.
#[derive(Clone)]
pub(super) struct Display {
    console: Console,
    /// burn-train's view of the whole terminal, where that is drawn.
    view: Option<View>,
}

impl Display {
    /// burn-train's view on a terminal, unless plain lines are wanted; lines elsewhere.
    pub(super) fn new(args: &TrainArgs, console: &Console) -> Self {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let wanted = terminal && !args.plain && !console.json && !args.output.quiet;
        Self { console: *console, view: if wanted { View::new() } else { None } }
    }

    /// Lines, whatever there is to draw on.
    pub(super) fn lines(console: &Console) -> Self {
        Self { console: *console, view: None }
    }

    /// What draws the metrics: nothing where the observer prints lines.
    pub(super) fn renderer(&self, interrupter: &Interrupter) -> Box<dyn MetricsRenderer> {
        match &self.view {
            Some(view) => view.renderer(interrupter),
            None => Box::new(NoRenderer),
        }
    }

    /// Prints a line a step, unless the terminal view shows them.
    pub(super) fn observer(&self) -> Box<dyn Observer + Send> {
        Box::new(Lines { console: self.console, silent: self.view.is_some(), start: None, notes: Vec::new() })
    }

    fn say(&self, text: &str) {
        match &self.view {
            Some(view) => view.say(text),
            None => self.console.say(text),
        }
    }

    /// Gives the terminal back in a hurry.
    pub(super) fn leave(&self) {
        if let Some(view) = &self.view {
            view.leave();
        }
    }
}

/// What a validation found, on a line.
pub(super) fn evaluated_line(record: &EvalRecord) -> String {
    let exact = record.exact_match.map_or(String::new(), |share| format!(", {:.2} % right", 100.0 * share));
    format!("step {}: validation loss {:.4}{exact} on {} samples", record.step, record.loss, record.samples)
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
        let left = start.elapsed().as_secs_f64() / made as f64 * (total - done) as f64;
        let eta = std::time::Duration::try_from_secs_f64(left).ok().filter(|_| made > 0);
        if self.console.json {
            // Whoever closed the output has seen enough; the run goes on.
            let _ = print_json(record, false);
        } else if !self.silent {
            self.console.note(progress_line(record, total, eta));
        }
    }

    fn evaluated(&mut self, record: &EvalRecord) {
        self.note(&evaluated_line(record));
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
pub(super) struct NoRenderer;

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
