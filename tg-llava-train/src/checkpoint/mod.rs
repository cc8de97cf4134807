//! Checkpoints of a training run: complete or not there, checked before use, and rotated.
//!
//! # Layout of `output_dir`
//!
//! ```text
//! output_dir/
//!   checkpoint-200/            one save, named by its optimizer step as the HF Trainer does
//!     ...                      the stage's own files, folders among them
//!     optimizer.safetensors    OPTIMIZER_FILE: the optimizer's tensors, little-endian; of several ranks each writes its slices into
//!                              optimizer-00001-of-00008.safetensors and so on
//!     state.json               STATE_FILE: TrainState
//!     manifest.json            written last: every other file with its length and hash
//!   checkpoint-400/
//!   best.json                  the step that scored best, with its score
//!   tmp-checkpoint-600-4711/   an unfinished save; the last number is the process
//! ```
//!
//! `manifest.json`, format version 1:
//!
//! | key | what |
//! |---|---|
//! | `version` | 1 |
//! | `step` | the optimizer step, as in the folder's name |
//! | `saved` | counts the saves into `output_dir`, from 1; the newest checkpoint is the one saved last |
//! | `files` | by path with `/`: `bytes`, and `xxh3_128` in hex as `xxhsum -H2` prints it |
//! | `seal` | XXH3-128 of the JSON of `step`, `saved` and `files`, without spaces and in this order |
//!
//! Files that the manifest does not name are ignored, so notes may be added to a folder.
//!
//! `state.json` and `best.json` hold `version` (1) and the fields of [`TrainState`] and [`Best`].
//!
//! # What holds after a crash
//!
//! A save goes into `tmp-checkpoint-*`; files, manifest and folders are flushed to the disk before the one
//! rename that makes it a checkpoint. One that it replaces is `tmp-replaced-*` meanwhile, and goes back if the
//! new one does not arrive. A checkpoint that goes is renamed to `tmp-removed-*` before its files are deleted.
//! So a process killed at any moment leaves every `checkpoint-<step>` whole; only damage from outside is left
//! to find, and [`CheckpointStore::latest`] looks for it. One process at a time may save into an `output_dir`.

mod best;
mod damage;
mod error;
mod files;
mod fingerprint;
mod folder_name;
mod hash;
mod manifest;
mod rotation;
mod state;
mod store;
mod tensors;
mod verified;

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod store_tests;

pub use best::Best;
pub use damage::{Damage, Damaged};
pub use error::CheckpointError;
pub use fingerprint::{Difference, Fingerprint, OtherRun};
pub use hash::{HashingReader, hash_bytes, hash_file};
pub use rotation::Rotation;
pub use safetensors::Dtype;
pub use state::TrainState;
pub use store::{CheckpointStore, Latest, Saved};
pub use tensors::{TensorFile, TensorSource, write_tensors};
pub use tg_llava_core::weights::TensorProblem;
pub use verified::{Checkpoint, optimizer_file};

/// Name of the file with a [`TrainState`] in a checkpoint.
pub const STATE_FILE: &str = "state.json";

/// Name of the file with the optimizer's tensors in a checkpoint.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// Result with a [`CheckpointError`].
pub type Result<T, E = CheckpointError> = std::result::Result<T, E>;
