//! How a rank ends that another one holds up for good, while its own work stands still.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::failure::ELSEWHERE;

/// What is to be done before the process ends in the midst of its work. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Emergency(Arc<Mutex<Acts>>);

#[derive(Default)]
struct Acts {
    before: Vec<Act>,
    after: Vec<Act>,
}

type Act = Box<dyn FnOnce() + Send>;

/// How long the process's own cleaning up may take, which a device that hangs may hinder.
const PATIENCE: Duration = Duration::from_secs(5);

impl Emergency {
    /// What makes the message readable.
    pub(super) fn before_words(&self, act: impl FnOnce() + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).before.push(Box::new(act));
    }

    /// What may take long, or for ever.
    #[cfg_attr(
        not(any(feature = "cuda", feature = "cuda-plain")),
        expect(dead_code, reason = "GPUs alone need it")
    )]
    pub(super) fn after_words(&self, act: impl FnOnce() + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).after.push(Box::new(act));
    }

    /// Ends the process with `message`.
    pub(super) fn end(&self, message: &str) {
        let Acts { before, after } =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        before.into_iter().for_each(|act| act());
        eprintln!("error: {message}; the same command goes on from the last checkpoint");
        // On another thread, so that this one lives whatever hangs.
        let _ = std::thread::Builder::new().name("end".into()).spawn(move || {
            after.into_iter().for_each(|act| act());
            std::process::exit(i32::from(ELSEWHERE));
        });
        std::thread::sleep(PATIENCE);
        #[cfg(unix)]
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}
