//! Ctrl-C and its like: in `chat` it stops an answer, or where nothing is being answered, the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// The exit code of a program that SIGINT ended.
pub const EXIT_CODE: i32 = 130;

/// How the program is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, as batch systems send before they kill, or SIGHUP, when the terminal is closed, or SIGUSR1, as Slurm's
    /// `--signal=USR1@300` sends ahead of a time limit and `mpirun` passes on. Any may come several times at once, so that
    /// a second one means no more than the first.
    Terminate,
}

impl Request {
    #[cfg(unix)]
    fn signals(self) -> &'static [i32] {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
        match self {
            Self::Interrupt => &[SIGINT],
            Self::Terminate => &[SIGTERM, SIGHUP, SIGUSR1],
        }
    }
}

/// Whether whoever started the program had it ignore a signal, as `nohup` does with SIGHUP. Where the system does not
/// tell, SIGHUP is left alone.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    match mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) {
        Some(mask) => mask & (1 << (signal - 1)) != 0,
        None => signal == signal_hook::consts::SIGHUP,
    }
}

/// Calls `hear` on a thread of its own for each of the `wanted` requests, which then no longer end the program. Where
/// the system refuses, they do as usual.
pub fn listen(wanted: &[Request], mut hear: impl FnMut(Request) + Send + 'static) {
    #[cfg(unix)]
    {
        let wanted = wanted.to_vec();
        let numbers: Vec<i32> = wanted.iter().flat_map(|request| request.signals()).copied().collect();
        let numbers = numbers.into_iter().filter(|&number| !is_ignored(number));
        let Ok(mut signals) = signal_hook::iterator::Signals::new(numbers) else { return };
        std::thread::spawn(move || {
            for signal in signals.forever() {
                wanted.iter().filter(|w| w.signals().contains(&signal)).for_each(|request| hear(*request));
            }
        });
    }
    #[cfg(not(unix))]
    {
        let _ = wanted;
        let _ = ctrlc::set_handler(move || hear(Request::Interrupt));
    }
}

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
        listen(&[Request::Interrupt], move |_| {
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
