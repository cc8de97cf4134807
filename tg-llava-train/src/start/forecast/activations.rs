use burn::tensor::DType;
use serde::Serialize;
use tg_llava_core::config::{LlmConfig, MultimodalConfig};
use tg_llava_core::weights::is_block_matrix;

use super::{Attention, Workload};
use crate::config::{BaseFormat, Component};

/// Pictures that a frozen tower has in work at once.
const TOWER_CHUNK: f64 = 20.0;

/// Bytes that a micro-batch takes on one rank, estimated from the plain formulas of attention and feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Activations {
    /// What the backward pass needs of the forward pass.
    pub kept: u64,
    /// The largest step at work, with its gradients.
    pub block: u64,
    /// The rows of logits that are alive at once with their softmax and gradient, and the head's gradient.
    pub logits: u64,
}

impl Activations {
    pub(super) fn new(workload: &Workload<'_>) -> Self {
        let mut stacks = vec![decoder(workload)];
        if let Some(mm) = &workload.model.multimodal {
            stacks.extend(encoders(mm, workload));
        }
        let block = stacks.iter().map(|stack| stack.at_work(workload)).fold(0.0, f64::max);
        Self {
            kept: stacks.iter().map(|stack| stack.kept(workload)).sum::<f64>() as u64,
            block: (block + dequantised(workload)) as u64,
            logits: logits(workload) as u64,
        }
    }

    /// All that is there at the worst moment.
    pub fn peak(&self) -> u64 {
        self.kept.saturating_add(self.block.max(self.logits))
    }
}

/// Equal blocks over rows of one length. Floats, so that no size overflows; they are estimates.
struct Stack {
    rows: f64,
    length: f64,
    width: f64,
    feed_forward: f64,
    /// Matrices in the feed-forward's width: those of a gated one, or of a plain one.
    hidden: f64,
    heads: f64,
    blocks: f64,
    /// Whether gradients pass, so that something is kept for them.
    recorded: bool,
    /// Parameters of a block that learn.
    learning: f64,
}

impl Stack {
    fn tokens(&self) -> f64 {
        self.rows * self.length
    }

    fn scores(&self, attention: Attention) -> f64 {
        match attention {
            Attention::WrittenOut => self.rows * self.heads * self.length * self.length,
            Attention::Fused => 0.0,
        }
    }

    /// Bytes inside one block after its forward pass: norms, projections, residuals, feed-forward, and the attention's scores, softmax
    /// and its factors.
    fn forward(&self, workload: &Workload<'_>) -> f64 {
        let size = workload.dtype.size() as f64;
        size * (self.tokens() * (12.0 * self.width + self.hidden * self.feed_forward)
            + 4.0 * self.scores(workload.attention))
    }

    /// Bytes inside one block in the midst of its backward pass: the same with gradients, the f32 copies that norms and softmax compute
    /// on, and the gradients of its weights, as computed, as exchanged and as received.
    fn backward(&self, workload: &Workload<'_>) -> f64 {
        let size = workload.dtype.size() as f64;
        size * self.tokens() * (26.0 * self.width + 1.75 * self.hidden * self.feed_forward)
            + 20.0 * self.scores(workload.attention)
            + 3.0 * size * self.learning
    }

    fn at_work(&self, workload: &Workload<'_>) -> f64 {
        if self.recorded { self.backward(workload) } else { self.forward(workload) }
    }

    fn kept(&self, workload: &Workload<'_>) -> f64 {
        match (self.recorded, workload.config.run.gradient_checkpointing) {
            (false, _) => 0.0,
            (true, true) => workload.dtype.size() as f64 * self.tokens() * self.width * self.blocks,
            // The last block is the one at work.
            (true, false) => (self.blocks - 1.0).max(0.0) * self.forward(workload),
        }
    }
}

fn decoder(workload: &Workload<'_>) -> Stack {
    let llm = &workload.model.llm;
    Stack {
        rows: workload.batch_size as f64,
        length: workload.length as f64,
        width: llm.hidden_size as f64,
        feed_forward: llm.intermediate_size as f64,
        hidden: 4.0,
        heads: llm.num_attention_heads as f64,
        // The inputs, their gradients and the states at the two ends are as large as a block's input each.
        blocks: llm.num_hidden_layers as f64
            + if workload.config.run.gradient_checkpointing { 4.0 } else { 0.0 },
        recorded: true,
        learning: learning_of_a_block(workload),
    }
}

fn tables(llm: &LlmConfig) -> f64 {
    let table = (llm.vocab_size * llm.hidden_size) as f64;
    if llm.tie_word_embeddings { table } else { 2.0 * table }
}

/// Values of a block that learn: its own, or those of the adapter over it.
fn learning_of_a_block(workload: &Workload<'_>) -> f64 {
    let llm = &workload.model.llm;
    let (_, learn) = workload.table.counts(Component::Llm);
    let tables = if workload.config.decoder_learns_whole() { tables(llm) } else { 0.0 };
    (learn as f64 - tables) / llm.num_hidden_layers.max(1) as f64
}

/// Bytes of a block's matrices as floats, where they are held quantised.
fn dequantised(workload: &Workload<'_>) -> f64 {
    if workload.config.lora.as_ref().is_none_or(|lora| lora.base == BaseFormat::Float) {
        return 0.0;
    }
    let matrices = workload.table.iter().filter(|(_, info)| is_block_matrix(&info.key));
    let values: usize = matrices.map(|(_, info)| info.count()).sum();
    values as f64 / workload.model.llm.num_hidden_layers.max(1) as f64 * workload.dtype.size() as f64
}

/// The vision tower and the bridges.
fn encoders(mm: &MultimodalConfig, workload: &Workload<'_>) -> Vec<Stack> {
    let batch = workload.batch_size as f64;
    let train = &workload.config.train;
    let vision = &mm.vision;
    let pictures = batch * if mm.detail.is_some() { 5.0 } else { 1.0 };
    let mut stacks = vec![Stack {
        rows: if train.vision_tower { pictures } else { pictures.min(TOWER_CHUNK) },
        length: vision.num_positions() as f64,
        width: vision.hidden_size as f64,
        feed_forward: vision.intermediate_size as f64,
        hidden: 3.0,
        heads: vision.num_attention_heads as f64,
        blocks: vision.num_hidden_layers as f64,
        recorded: train.vision_tower,
        learning: 0.0,
    }];
    if let Some(guide) = &mm.guide {
        stacks.push(Stack {
            rows: batch,
            length: guide.num_query_tokens as f64,
            width: guide.hidden_size as f64,
            feed_forward: guide.intermediate_size as f64,
            hidden: 3.0,
            heads: guide.num_attention_heads as f64,
            blocks: guide.num_hidden_layers as f64,
            recorded: true,
            learning: 0.0,
        });
    }
    if let Some(detail) = &mm.detail {
        // The crops' features and their two-layer feed-forward outweigh the latents by far.
        stacks.push(Stack {
            rows: batch,
            length: detail.num_positions as f64,
            width: detail.hidden_size as f64,
            feed_forward: 0.0,
            hidden: 0.0,
            heads: 0.0,
            blocks: 1.0,
            recorded: true,
            learning: 0.0,
        });
    }
    stacks
}

fn logits(workload: &Workload<'_>) -> f64 {
    let llm = &workload.model.llm;
    let (size, config) = (workload.dtype.size() as f64, workload.config);
    let rows = (workload.batch_size * workload.length).min(config.run.loss_chunk) as f64;
    let vocabulary = llm.vocab_size as f64;
    // In f32: the logits, their softmax, its gradient; in the format of the computation, the product and its gradient twice.
    let chunk = match workload.dtype {
        DType::F32 => 12.0,
        _ => 12.0 + 3.0 * size,
    };
    let head =
        if config.decoder_learns_whole() { (8.0 + size) * vocabulary * llm.hidden_size as f64 } else { 0.0 };
    chunk * rows * vocabulary + head
}
