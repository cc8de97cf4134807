//! The files that a run writes while it goes on.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::TrainConfig;
use crate::log::{EventWriter, MetricsLog, Record, plot_run, read_metrics};
use crate::run::RunError;
use crate::start::StartError;

/// Names of the files in `output_dir`.
const METRICS: &str = "metrics.jsonl";
const EVENTS: &str = "tensorboard";
const RESOLVED: &str = "run.toml";
const PLOT: &str = "loss.png";

/// The metrics, twice: as JSON lines and for TensorBoard.
pub(super) struct RunLog {
    metrics: MetricsLog,
    events: EventWriter,
}

impl RunLog {
    /// New files before the first step; else those that are there, without what came after `step`.
    pub(super) fn open(config: &TrainConfig, step: usize) -> Result<Self, RunError> {
        let dir = &config.output_dir;
        let path = dir.join(RESOLVED);
        let text = config.to_toml().map_err(StartError::from)?;
        std::fs::write(&path, text).map_err(|source| crate::log::LogError::Io { path, source })?;
        let (metrics, events) = match step {
            0 => (MetricsLog::create(dir.join(METRICS))?, EventWriter::create(dir.join(EVENTS))?),
            _ => (MetricsLog::resume(dir.join(METRICS), step)?, EventWriter::resume(dir.join(EVENTS), step)?),
        };
        Ok(Self { metrics, events })
    }

    pub(super) fn write(&mut self, record: &Record) -> Result<(), RunError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.append(record)?;
        Ok(self.events.record(record, now.as_secs_f64())?)
    }

    /// Whether the metrics hold a check after `step`.
    pub(super) fn has_check(&self, step: usize) -> Result<bool, RunError> {
        let records = read_metrics(self.metrics.path())?;
        Ok(records.iter().any(|record| matches!(record, Record::Eval(check) if check.step == step)))
    }

    /// Draws the course of the loss.
    pub(super) fn plot(&self, config: &TrainConfig) -> Result<(), RunError> {
        let records = read_metrics(self.metrics.path())?;
        let name =
            config.output_dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(plot_run(config.output_dir.join(PLOT), &name, &records)?)
    }
}
