//! burn-train's view of a run on the whole terminal.
//!
//! It puts the terminal into raw mode, in which Ctrl-C is a key like any other, and one that it does not know.

use burn::train::Interrupter;
use burn::train::renderer::MetricsRenderer;

/// The terminal that the view is drawn on.
#[derive(Clone)]
pub(super) struct View {
    #[cfg(all(feature = "tui", unix))]
    before: rustix::termios::Termios,
}

#[cfg(feature = "tui")]
impl View {
    /// The terminal as it is now; `None` where its mode cannot be read.
    pub(super) fn new() -> Option<Self> {
        #[cfg(unix)]
        return Some(Self { before: rustix::termios::tcgetattr(rustix::stdio::stdout()).ok()? });
        #[cfg(not(unix))]
        Some(Self {})
    }

    /// Begins to draw.
    pub(super) fn renderer(&self, interrupter: &Interrupter) -> Box<dyn MetricsRenderer> {
        use burn::train::renderer::tui::TuiMetricsRendererWrapper;
        let renderer = TuiMetricsRendererWrapper::new(interrupter.clone(), None);
        #[cfg(unix)]
        keep_ctrl_c();
        Box::new(renderer)
    }

    /// Writes `text` over the last line, which the view seldom uses.
    pub(super) fn say(&self, text: &str) {
        use std::io::Write;
        let _ = write!(std::io::stderr(), "\x1b7\x1b[999;1H\x1b[7m{text}\x1b[0m\x1b8");
    }

    /// Gives the terminal back in a hurry: mouse and screen as they were, the cursor to be seen, lines again.
    pub(super) fn leave(&self) {
        use std::io::Write;
        let mut out = std::io::stdout();
        let _ = out.write_all(b"\x1b[?1006l\x1b[?1015l\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b[?1049l\x1b[?25h");
        let _ = out.flush();
        #[cfg(unix)]
        {
            use rustix::termios::{OptionalActions, tcsetattr};
            let _ = tcsetattr(rustix::stdio::stdout(), OptionalActions::Now, &self.before);
        }
    }
}

/// Lets Ctrl-C be a signal again once the view, on a thread of its own, has put the terminal into raw mode. Leaving
/// that mode undoes this as well.
#[cfg(all(feature = "tui", unix))]
fn keep_ctrl_c() {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
    // Half a minute at most: on a busy machine that thread may begin late.
    for _ in 0..3000 {
        let Ok(mut mode) = tcgetattr(rustix::stdio::stdout()) else { return };
        if !mode.local_modes.contains(LocalModes::ISIG) {
            mode.local_modes |= LocalModes::ISIG;
            // To stop or quit in the midst of the view would leave the terminal unusable.
            mode.special_codes[SpecialCodeIndex::VSUSP] = 0;
            mode.special_codes[SpecialCodeIndex::VQUIT] = 0;
            let _ = tcsetattr(rustix::stdio::stdout(), OptionalActions::Now, &mode);
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// A program without the view.
#[cfg(not(feature = "tui"))]
impl View {
    pub(super) fn new() -> Option<Self> {
        None
    }

    pub(super) fn renderer(&self, _interrupter: &Interrupter) -> Box<dyn MetricsRenderer> {
        Box::new(super::watch::NoRenderer)
    }

    pub(super) fn say(&self, _text: &str) {}

    pub(super) fn leave(&self) {}
}
