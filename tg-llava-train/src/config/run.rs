//! `[run]`: how long, in which pieces, and what is kept.

use serde::{Deserialize, Serialize};

use super::Steps;
use crate::data::Dealing;

/// Length, batches, memory and checkpoints of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunOptions {
    /// Samples that go through the model at once (`per_device_train_batch_size`). Default 8.
    pub batch_size: usize,
    /// Batches of each device whose gradients make up one optimizer step (`gradient_accumulation_steps`). Default 1.
    pub accumulation: usize,
    /// Samples of one optimizer step over all devices, a multiple of `batch_size`, instead of `accumulation`: the run does not depend
    /// on the number of devices then. Default: `batch_size * accumulation * devices`.
    pub global_batch_size: Option<usize>,
    /// Passes over the samples; may be a fraction (`num_train_epochs`). Default 1.
    pub epochs: f64,
    /// Optimizer steps, whatever `epochs` says. Default: none.
    pub max_steps: Option<usize>,
    /// Whether activations inside blocks are computed again in the backward pass instead of kept: less memory, more
    /// time, the same gradients. Default false.
    pub gradient_checkpointing: bool,
    /// Tokens whose logits are alive at once in the loss. Default 1024.
    pub loss_chunk: usize,
    /// Optimizer steps from one checkpoint to the next: a count, or a share of the run in `(0, 1)`; 0 for the end
    /// alone. Default 0.5.
    pub save_steps: Steps,
    /// How many checkpoints are kept; the oldest go first. Default: all.
    pub save_total_limit: Option<usize>,
    /// Optimizer steps from one log line to the next (`logging_steps`). Default 1.
    pub log_every: usize,
    /// Number format of weights and activations in the computation: `f32`, `bf16` or `f16`; the trained weights and
    /// the optimizer's state are f32 in any case. Default: by the device.
    pub dtype: Option<RunDType>,
    /// Largest weight file in bytes; a larger model is split. Default 5 GB, as Hugging Face's.
    pub max_shard_bytes: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            batch_size: 8,
            accumulation: 1,
            global_batch_size: None,
            epochs: 1.0,
            max_steps: None,
            gradient_checkpointing: false,
            loss_chunk: 1024,
            save_steps: Steps::Share(0.5),
            save_total_limit: None,
            log_every: 1,
            dtype: None,
            max_shard_bytes: 5_000_000_000,
        }
    }
}

impl RunOptions {
    /// How a step's samples are dealt out among `ranks`.
    pub fn dealing(&self, ranks: usize) -> Dealing {
        let batch_size = self.batch_size.max(1);
        match self.global_batch_size {
            Some(samples) => {
                let micro_batches = (samples / batch_size).max(1);
                Dealing { batch_size, micro_batches, fill: samples.max(1) }
            }
            // As the HF Trainer: one device takes an epoch as it is, several fill it up so that all of them have as many batches.
            None => {
                let fill = if ranks > 1 { batch_size * ranks } else { 1 };
                Dealing { batch_size, micro_batches: self.accumulation.max(1) * ranks.max(1), fill }
            }
        }
    }
}

/// Number format of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunDType {
    /// 32-bit float.
    F32,
    /// bfloat16 (`--bf16 True`).
    Bf16,
    /// 16-bit float, with a scaled loss (`--fp16 True`).
    F16,
}
