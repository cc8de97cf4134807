use serde::Serialize;

use super::Workload;
use crate::config::Component;
use crate::engine::Units;
use crate::parallel::ShardLayout;

/// What a step's time is computed with. Nothing of it is measured by this program.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Assumptions {
    /// Operations per second that a GPU reaches over a whole step; kernels decide.
    pub flops: f64,
    /// Bytes per second and GPU in a transpose within a node (NVLink).
    pub transpose: f64,
    /// Bytes per second and GPU in a gather within a node (NVLink).
    pub gather: f64,
    /// Bytes per second and GPU between nodes (InfiniBand).
    pub between_nodes: f64,
    /// Bytes per second of the GPU's own memory.
    pub memory: f64,
    /// Seconds until a collective begins.
    pub latency: f64,
    /// Standard deviation of the ranks' times for one step, as a share; the slowest holds up all.
    pub spread: f64,
    /// Seconds of a step that nothing above explains.
    pub overhead: f64,
}

impl Assumptions {
    /// H100 or H200 with NVLink within a node and 400 Gbit/s a GPU between nodes, on well tuned kernels.
    pub const TUNED: Self = Self {
        flops: 400e12,
        transpose: 330e9,
        gather: 360e9,
        between_nodes: 42e9,
        memory: 2.6e12,
        latency: 25e-6,
        spread: 0.03,
        overhead: 0.002,
    };
    /// The same on plainer kernels.
    pub const PLAIN: Self = Self { flops: 250e12, ..Self::TUNED };

    /// Seconds that `ranks` ranks wait for the slowest one of a step of `compute` seconds: the expected largest of as many normal
    /// deviations.
    pub fn waiting(&self, compute: f64, ranks: usize) -> f64 {
        compute * self.spread * (2.0 * (ranks as f64).ln()).sqrt()
    }

    /// Seconds of `calls` sums over `nodes` nodes of `bytes` bytes in all: a tree over them, up and down.
    pub fn node_sum(&self, calls: f64, bytes: f64, nodes: usize) -> f64 {
        bytes / self.between_nodes + calls * 2.0 * self.latency * (nodes as f64).log2()
    }
}

/// Traffic and time of one optimizer step, computed from sizes and [`Assumptions`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepForecast {
    /// Micro-batches of each rank.
    pub rounds: usize,
    /// Samples of all ranks.
    pub samples: usize,
    /// Bytes that each rank sends in all transposes of gradients, to the ranks of its node.
    pub transpose_bytes: f64,
    /// Bytes that each rank sends in the gather of new weights, to the ranks of its node.
    pub gather_bytes: f64,
    /// Bytes that each rank sends in the sum over nodes.
    pub node_sum_bytes: f64,
    /// Operations of each rank.
    pub flops: f64,
    /// Seconds of computation.
    pub compute: f64,
    /// Seconds of all transposes.
    pub transposes: f64,
    /// Seconds of the gather.
    pub gather: f64,
    /// Seconds of the sum over nodes.
    pub node_sum: f64,
    /// Seconds of the optimizer.
    pub optimizer: f64,
    /// Seconds that ranks wait for the slowest one.
    pub waiting: f64,
    /// Seconds of the step, nothing of it at the same time as anything else.
    pub seconds: f64,
}

/// Bytes that the optimizer reads and writes for each value that it updates.
const UPDATE_BYTES: f64 = 44.0;

impl StepForecast {
    /// A step of the run, whose micro-batches are dealt out to all ranks.
    pub fn new(workload: &Workload<'_>, assumed: &Assumptions) -> Self {
        let world = workload.world;
        let micro_batches = workload.config.run.dealing(world.size()).micro_batches;
        let (ranks, nodes) = (world.local_size(), world.nodes());
        let rounds = micro_batches.div_ceil(world.size());
        let units = Units::new(workload.table, workload.dtype);
        // What each other rank of the node gets of a slice.
        let others = (ranks - 1) as f64;
        let (mut slice, mut gradients) = (0.0, 0.0);
        for member in units.all() {
            let len = ShardLayout { count: member.count, ranks }.len() as f64;
            slice += len;
            gradients += member.travels.size() as f64 * len;
        }
        let transpose_bytes = rounds as f64 * gradients * others;
        let gather_bytes = workload.dtype.size() as f64 * slice * others;
        let node_sum_bytes = 2.0 * 4.0 * slice * (nodes - 1) as f64 / nodes as f64;

        let units = units.len() as f64;
        let latency = if ranks > 1 { units * assumed.latency } else { 0.0 };
        let flops = (rounds * workload.batch_size) as f64 * sample_flops(workload);
        let compute = flops / assumed.flops;
        let waiting = assumed.waiting(compute, world.size());
        let transposes = transpose_bytes / assumed.transpose + rounds as f64 * latency;
        let gather = gather_bytes / assumed.gather + latency;
        let node_sum = assumed.node_sum(units, node_sum_bytes, nodes);
        let optimizer = UPDATE_BYTES * slice / assumed.memory;
        Self {
            rounds,
            samples: micro_batches * workload.batch_size,
            transpose_bytes,
            gather_bytes,
            node_sum_bytes,
            flops,
            compute,
            transposes,
            gather,
            node_sum,
            optimizer,
            waiting,
            seconds: compute + waiting + transposes + gather + node_sum + optimizer + assumed.overhead,
        }
    }
}

/// Operations that a sample of the workload's length costs, passes that compute activations again included. The bridges' are left out:
/// they are some thousandth.
fn sample_flops(workload: &Workload<'_>) -> f64 {
    let (model, config) = (workload.model, workload.config);
    let (llm, length) = (&model.llm, workload.length as f64);
    let (parameters, _) = workload.table.counts(Component::Llm);
    // The embedding is looked up, the head multiplied; tied, they are one table.
    let looked_up = if llm.tie_word_embeddings { 0 } else { llm.vocab_size * llm.hidden_size };
    let products = 2.0 * (parameters - looked_up) as f64 * length;
    let attention =
        4.0 * length * length * (llm.num_attention_heads * llm.head_dim * llm.num_hidden_layers) as f64;
    // Forwards, and backwards to the inputs.
    let passes =
        2 + usize::from(config.run.gradient_checkpointing) + usize::from(config.decoder_learns_whole());
    let Some(mm) = &model.multimodal else { return passes as f64 * (products + attention) };
    let (tower, _) = workload.table.counts(Component::VisionTower);
    let views = if mm.detail.is_some() { 5 } else { 1 };
    let seen = 2.0 * (views * mm.vision.num_positions()) as f64 * tower as f64;
    let tower_passes = if config.train.vision_tower { passes.max(3) } else { 1 };
    passes as f64 * (products + attention) + tower_passes as f64 * seen
}
