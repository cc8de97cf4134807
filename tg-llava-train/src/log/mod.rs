//! The log of a run: records as JSON lines, TensorBoard events, a line on the terminal and a plot.
//!
//! Numbers only; nothing here knows the model or a device.

mod error;
mod jsonl;
mod line;
mod memory;
mod plot;
mod record;
mod tensorboard;
mod throughput;

pub use error::LogError;
pub use jsonl::{MetricsLog, read_metrics};
pub use line::progress_line;
pub use memory::memory_bytes;
pub use plot::plot_run;
pub use record::{EvalRecord, NoteRecord, Record, StepRecord};
pub use tensorboard::EventWriter;
pub use throughput::{StepWork, Throughput};
