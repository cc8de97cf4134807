//! Calls into the `tokenizers` crate, which panics where some malformed files or odd settings lead it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::Reason;

/// Runs `work`; a panic in it becomes an error like its own.
///
/// The crate's parsers and decoders `expect` what a hostile file need not give: JSON that is cut inside a decoder, a
/// character map that is none, a `Strip` that takes more than there is. What a panic left half done is not used.
pub(super) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Reason> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Reason::from),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a reason");
            Err(Reason::from(format!("the tokenizer's settings cannot be used ({said})")))
        }
    }
}
