//! What is worth keeping of a run, one record at a time.

use serde::{Deserialize, Deserializer, Serialize};

/// One optimizer step.
///
/// JSON has no number for infinity or NaN: such a value is stored as `null`, which reads back as NaN or, where
/// the field is optional, as absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Optimizer steps done, this one included.
    pub step: usize,
    /// Epochs done, as a share: 1.5 is the middle of the second epoch.
    pub epoch: f64,
    /// Training loss, the mean over the step's micro-batches.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Learning rate that the step used.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: Option<f64>,
    /// Samples trained per second.
    pub samples_per_s: f64,
    /// Tokens trained per second.
    pub tokens_per_s: f64,
    /// Share of the time, within `0..=1`, that was spent waiting for data.
    pub data_wait: f64,
    /// Memory in use, in bytes, where the platform tells.
    pub memory_bytes: Option<u64>,
    /// Seconds of training since the start of the run; a resumed run counts on.
    pub seconds: f64,
    /// Whether the parameters were left as they were, since the loss or the gradient was not finite.
    pub skipped: bool,
    /// Factor on the loss, in a run with half-precision floats.
    pub loss_scale: Option<f64>,
    /// The rank that the others waited for, in a run on several devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub straggler: Option<usize>,
    /// Share of the ranks' time, within `0..=1`, that went into communication and waiting for one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communication: Option<f64>,
}

/// One validation during training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Optimizer steps done before it.
    pub step: usize,
    /// Mean loss over the validation samples; NaN is stored as `null`.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Share of the generated answers, within `0..=1`, that equal the expected ones, where answers were generated.
    pub exact_match: Option<f64>,
    /// Validation samples.
    pub samples: usize,
    /// Seconds of training since the start of the run; a resumed run counts on.
    pub seconds: f64,
}

/// Something else that happened, in words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NoteRecord {
    /// Optimizer steps done before it.
    pub step: usize,
    /// What happened.
    pub text: String,
    /// Seconds of training since the start of the run; a resumed run counts on.
    pub seconds: f64,
}

/// One line of the metrics file; the key `kind` (`step`, `eval`, `note`) tells which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// An optimizer step.
    Step(StepRecord),
    /// A validation.
    Eval(EvalRecord),
    /// A remark.
    Note(NoteRecord),
}

impl Record {
    /// Optimizer steps done when it was written.
    pub fn step(&self) -> usize {
        match self {
            Self::Step(record) => record.step,
            Self::Eval(record) => record.step,
            Self::Note(record) => record.step,
        }
    }

    /// Seconds of training since the start of the run.
    pub fn seconds(&self) -> f64 {
        match self {
            Self::Step(record) => record.seconds,
            Self::Eval(record) => record.seconds,
            Self::Note(record) => record.seconds,
        }
    }
}

impl From<StepRecord> for Record {
    fn from(record: StepRecord) -> Self {
        Self::Step(record)
    }
}

impl From<EvalRecord> for Record {
    fn from(record: EvalRecord) -> Self {
        Self::Eval(record)
    }
}

impl From<NoteRecord> for Record {
    fn from(record: NoteRecord) -> Self {
        Self::Note(record)
    }
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_tagged_object() {
        let eval = Record::from(EvalRecord {
            step: 20,
            loss: 0.25,
            exact_match: Some(0.5),
            samples: 64,
            seconds: 1.5,
        });
        let line = r#"{"kind":"eval","step":20,"loss":0.25,"exact_match":0.5,"samples":64,"seconds":1.5}"#;
        assert_eq!(serde_json::to_string(&eval).unwrap(), line);
        assert_eq!(serde_json::from_str::<Record>(line).unwrap(), eval);
        assert_eq!((eval.step(), eval.seconds()), (20, 1.5));
        assert!(serde_json::from_str::<Record>(&line.replace("eval", "evil")).is_err());
    }

    #[test]
    fn what_is_not_finite_is_null_and_reads_back_as_nan_or_absent() {
        let step = StepRecord {
            step: 3,
            loss: f64::NAN,
            grad_norm: Some(f64::INFINITY),
            skipped: true,
            ..Default::default()
        };
        let line = serde_json::to_string(&Record::from(step)).unwrap();
        assert!(line.contains(r#""loss":null,"lr":0.0,"grad_norm":null"#), "{line}");
        let Record::Step(read) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert!(read.loss.is_nan() && read.grad_norm.is_none() && read.skipped);
    }

    #[test]
    fn a_missing_number_is_an_error_and_a_missing_optional_one_is_not() {
        let line = r#"{"kind":"eval","step":1,"loss":1.0,"samples":2,"seconds":0.0}"#;
        assert!(serde_json::from_str::<Record>(line).is_ok());
        let error = serde_json::from_str::<Record>(&line.replace(r#""loss":1.0,"#, "")).unwrap_err();
        assert!(error.to_string().contains("missing field `loss`"), "{error}");
    }
}
