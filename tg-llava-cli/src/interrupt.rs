//! Ctrl-C: stops an answer; where nothing is being answered, the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// The exit code of a program that SIGINT ended.
const EXIT_CODE: i32 = 130;

/// How often Ctrl-C must be pressed during one step that does not end to stop the program after all.
const PRESSES_TO_QUIT: usize = 3;

/// Hears Ctrl-C. Clones share what they hear.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    busy: AtomicBool,
    presses: AtomicUsize,
}

/// While this lives, Ctrl-C is noted and does not end the program.
#[derive(Debug)]
pub struct Busy<'a>(&'a State);

impl Interrupt {
    /// Begins to listen. Where the system refuses, Ctrl-C ends the program as usual.
    pub fn install() -> Self {
        let interrupt = Self::default();
        let state = interrupt.0.clone();
        let _ = ctrlc::set_handler(move || {
            if state.press() {
                std::process::exit(EXIT_CODE);
            }
        });
        interrupt
    }

    /// Begins something that Ctrl-C may stop.
    pub fn busy(&self) -> Busy<'_> {
        self.0.presses.store(0, SeqCst);
        self.0.busy.store(true, SeqCst);
        Busy(&self.0)
    }
}

impl State {
    /// Counts one press; whether the program shall end.
    fn press(&self) -> bool {
        let presses = self.presses.fetch_add(1, SeqCst) + 1;
        !self.busy.load(SeqCst) || presses >= PRESSES_TO_QUIT
    }
}

impl Busy<'_> {
    /// Whether Ctrl-C was pressed since this began.
    pub fn interrupted(&self) -> bool {
        self.0.presses.load(SeqCst) > 0
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_the_program_only_when_idle_or_stuck() {
        let interrupt = Interrupt::default();
        assert!(interrupt.0.press());
        let busy = interrupt.busy();
        assert!(!busy.interrupted());
        assert!(!interrupt.0.press());
        assert!(busy.interrupted());
        assert!(!interrupt.0.press());
        assert!(interrupt.0.press());
        drop(busy);
        assert!(!interrupt.busy().interrupted());
        assert!(interrupt.0.press());
    }
}
