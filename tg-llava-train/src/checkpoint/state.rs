use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{read_versioned, versioned_json};
use super::fingerprint::compare;
use super::{Best, CheckpointError, Fingerprint, OtherRun, Result, STATE_FILE};
use crate::data::DataPosition;

const VERSION: u64 = 1;

/// Where a run stands after an optimizer step: all but tensors that the next step depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Optimizer steps done.
    pub step: usize,
    /// Samples consumed; the next batch starts here.
    pub position: DataPosition,
    /// States of the random generators, in a form of their own.
    pub rng: serde_json::Value,
    /// Seconds of training so far, interruptions not counted.
    pub seconds: f64,
    /// The factor of the loss, where it is scaled (f16).
    pub loss_scale: Option<f64>,
    /// The best score so far.
    pub best: Option<Best>,
    /// The run it belongs to.
    pub fingerprint: Fingerprint,
}

impl TrainState {
    /// Writes [`STATE_FILE`] into `folder`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(STATE_FILE);
        let json = versioned_json(&path, VERSION, self)?;
        std::fs::write(&path, json).map_err(|e| CheckpointError::io(&path, e))
    }

    /// Reads [`STATE_FILE`] in `folder`.
    ///
    /// # Errors
    /// Where the file cannot be read, does not parse or has another format version.
    pub fn read(folder: &Path) -> Result<Self> {
        read_versioned(&folder.join(STATE_FILE), VERSION)
    }

    /// Whether a run that `now` describes may go on from here; gives the entries of `now` that this state, written by
    /// an older program, does not tell.
    ///
    /// # Errors
    /// Every entry that differs, with both values.
    pub fn check_same_run(&self, now: &Fingerprint) -> Result<Vec<String>, OtherRun> {
        compare(&self.fingerprint, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state() -> TrainState {
        TrainState {
            step: 12,
            position: DataPosition { epoch: 1, sample: 48 },
            rng: serde_json::json!({"dropout": [u64::MAX, 1, i64::MIN], "name": "x"}),
            seconds: 1.5,
            loss_scale: None,
            best: None,
            fingerprint: [("seed".to_owned(), "42".to_owned())].into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        state().write(folder.path()).unwrap();
        assert_eq!(TrainState::read(folder.path()).unwrap(), state());
    }

    #[test]
    fn another_version_and_missing_keys_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STATE_FILE);
        state().write(folder.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"version\": 1", "\"version\": 2", 1)).unwrap();
        let error = TrainState::read(folder.path()).unwrap_err();
        assert!(matches!(error, CheckpointError::Version { found: 2, supported: 1, .. }), "{error}");
        assert!(error.to_string().contains("state.json: format version 2"), "{error}");
        std::fs::write(&path, text.replacen("\"seconds\"", "\"minutes\"", 1)).unwrap();
        let error = TrainState::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("missing field `seconds`"), "{error}");
    }

    proptest! {
        /// A score that came back another number would decide comparisons differently after a resume.
        #[test]
        fn numbers_come_back_bit_for_bit(
            value in -1e300f64..1e300, seconds in 0.0f64..1e7, scale in 0u64..u64::MAX,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let written = TrainState {
                seconds,
                loss_scale: Some(f64::from_bits(scale)).filter(|scale| scale.is_finite()),
                best: Some(Best { step: 1, metric: "eval_loss".to_owned(), value }),
                rng: scale.into(),
                ..state()
            };
            written.write(folder.path()).unwrap();
            prop_assert_eq!(TrainState::read(folder.path()).unwrap(), written);
        }
    }
}
