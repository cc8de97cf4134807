//! Panics of a device's runtime (no driver, out of memory) as errors instead of stack traces.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;

use crate::failure::Failure;

/// Runs `work`; a panic becomes a [`Failure::Run`] that says where it came from. With `RUST_BACKTRACE` set, it is
/// also reported as usual.
pub(crate) fn contain<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let verbose = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    match catch(verbose, work) {
        Ok(result) => result,
        Err(message) => Err(Failure::Run(anyhow!(
            "stopped by a fault of the device or of this program: {message}\n  \
             RUST_BACKTRACE=1 shows where; --device chooses another device"
        ))),
    }
}

/// Runs `work` and gives the message of a panic on any thread meanwhile, the first one, instead of printing it.
pub(crate) fn catch<T>(verbose: bool, work: impl FnOnce() -> T) -> Result<T, String> {
    let first: Arc<Mutex<Option<String>>> = Arc::default();
    let previous = Arc::new(take_hook());
    let (note, usual) = (first.clone(), previous.clone());
    set_hook(Box::new(move |info| {
        note.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| describe(info));
        if verbose {
            usual(info);
        }
    }));
    let result = catch_unwind(AssertUnwindSafe(work));
    set_hook(Box::new(move |info| previous(info)));
    result.map_err(|_| {
        let message = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        message.unwrap_or_else(|| "a panic without a message".into())
    })
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("a panic without a message");
    match info.location() {
        // The path of a dependency on the machine that built this says nothing; its end does.
        Some(place) => {
            let file = place.file();
            let from = file.match_indices(['/', '\\']).rev().nth(2).map_or(0, |(at, _)| at + 1);
            format!("{message} ({}:{})", &file[from..], place.line())
        }
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failed_run() {
        let failure = contain::<()>(|| panic!("no adapter")).unwrap_err();
        let message = failure.message().unwrap();
        assert_eq!(failure.exit_code(), 1);
        assert!(message.contains("no adapter (tg-llava-cli/src/fault.rs:"), "{message}");
    }
}
