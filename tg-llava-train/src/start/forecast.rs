//! What a run will need of memory, before it takes any.

use burn::tensor::DType;
use serde::Serialize;
use tg_llava_core::config::ModelConfig;

use crate::config::TrainConfig;
use crate::engine::ParameterTable;

/// Bytes by what they are for. Weights, gradients and optimizer state are exact; activations and logits are
/// estimates from the plain formulas of attention and feed-forward, some tens of percent off either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryForecast {
    /// Weights in the format of the computation.
    pub weights: u64,
    /// Weights in f32, where the computation has fewer bits.
    pub master_weights: u64,
    /// Gradients, in f32.
    pub gradients: u64,
    /// AdamW's two moments, in f32.
    pub moments: u64,
    /// What the backward pass needs of the forward pass.
    pub activations: u64,
    /// Rows of logits that are alive at once, with their softmax and gradient.
    pub logits: u64,
    /// Pictures on the host: of the micro-batch under way, and of those that wait for their turn, in f32.
    pub pictures: u64,
}

impl MemoryForecast {
    /// A forecast for batches whose longest row has `length` decoder tokens.
    pub fn new(
        config: &TrainConfig,
        model: &ModelConfig,
        table: &ParameterTable,
        dtype: DType,
        length: usize,
    ) -> Self {
        let learn = table.trainable() as u64;
        let size = dtype.size() as u64;
        let rows = (config.run.batch_size * length).min(config.run.loss_chunk) as u64;
        Self {
            weights: table.total() as u64 * size,
            master_weights: if dtype == DType::F32 { 0 } else { 4 * learn },
            gradients: 4 * learn,
            moments: 8 * learn,
            activations: (size as f64 * activations(config, model, length)) as u64,
            logits: 4 * 3 * rows * model.llm.vocab_size as u64,
            pictures: pictures(config, model) as u64,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.parts().iter().fold(0, |sum, (_, bytes)| u64::saturating_add(sum, *bytes))
    }

    /// The parts by name.
    pub fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("weights", self.weights),
            ("master weights (f32)", self.master_weights),
            ("gradients (f32)", self.gradients),
            ("AdamW moments (f32)", self.moments),
            ("activations, about", self.activations),
            ("logits, about", self.logits),
            ("pictures, about", self.pictures),
        ]
    }
}

/// One stack of transformer blocks. Floats, so that no size overflows; they are estimates.
struct Stack {
    rows: f64,
    length: f64,
    width: f64,
    feed_forward: f64,
    heads: f64,
    blocks: f64,
    /// Matrices in the feed-forward's hidden width that are kept.
    hidden_kept: f64,
}

impl Stack {
    /// Values inside one block: norms, projections, residuals, feed-forward, and the attention's scores, softmax and
    /// its factors.
    fn block(&self) -> f64 {
        let tokens = self.rows * self.length;
        tokens * (12.0 * self.width + self.hidden_kept * self.feed_forward)
            + 4.0 * self.rows * self.heads * self.length * self.length
    }

    fn values(&self, recompute: bool) -> f64 {
        match recompute {
            true => self.block() + self.blocks * self.rows * self.length * self.width,
            false => self.blocks * self.block(),
        }
    }
}

fn activations(config: &TrainConfig, model: &ModelConfig, length: usize) -> f64 {
    let batch = config.run.batch_size as f64;
    let recompute = config.run.gradient_checkpointing;
    let llm = &model.llm;
    let decoder = Stack {
        rows: batch,
        length: length as f64,
        width: llm.hidden_size as f64,
        feed_forward: llm.intermediate_size as f64,
        heads: llm.num_attention_heads as f64,
        blocks: llm.num_hidden_layers as f64,
        hidden_kept: 4.0,
    };
    let mut sum = decoder.values(recompute);
    let Some(mm) = &model.multimodal else { return sum };
    let vision = &mm.vision;
    let mut tower = Stack {
        rows: batch * if mm.detail.is_some() { 5.0 } else { 1.0 },
        length: vision.num_positions() as f64,
        width: vision.hidden_size as f64,
        feed_forward: vision.intermediate_size as f64,
        heads: vision.num_attention_heads as f64,
        blocks: vision.num_hidden_layers as f64,
        hidden_kept: 3.0,
    };
    if config.train.vision_tower {
        sum += tower.values(recompute);
    } else {
        // Without a graph one block of at most 20 pictures is alive.
        tower.rows = tower.rows.min(20.0);
        sum += tower.block();
    }
    if let Some(guide) = &mm.guide {
        let qformer = Stack {
            rows: batch,
            length: guide.num_query_tokens as f64,
            width: guide.hidden_size as f64,
            feed_forward: guide.intermediate_size as f64,
            heads: guide.num_attention_heads as f64,
            blocks: guide.num_hidden_layers as f64,
            hidden_kept: 3.0,
        };
        sum += qformer.values(recompute);
    }
    if let Some(detail) = &mm.detail {
        // The crops' features and their two-layer feed-forward outweigh the latents by far.
        sum += batch * detail.num_positions as f64 * detail.hidden_size as f64 * 8.0;
    }
    sum
}

/// Bytes of the pixels of micro-batches whose samples all have one picture.
fn pictures(config: &TrainConfig, model: &ModelConfig) -> f64 {
    let Some(mm) = &model.multimodal else { return 0.0 };
    let samples = (1 + config.data.prefetch) as f64 * config.run.batch_size as f64;
    let views = if mm.detail.is_some() { 5.0 } else { 1.0 };
    samples * views * 3.0 * (mm.vision.image_size as f64).powi(2) * 4.0
}

/// Bytes of memory that programs can still take on this machine, where the system tells.
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib * 1024)
}
