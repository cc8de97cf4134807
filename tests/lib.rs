//! Golden fixtures, and the tests that need the whole workspace; they are in `tests/` beside this file.

use std::path::PathBuf;

/// A golden folder or file by its path under `fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}
