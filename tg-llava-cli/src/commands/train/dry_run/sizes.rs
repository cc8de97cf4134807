//! What follows from sizes alone: memory of a rank, what fits a card, traffic and time of a step.

use serde::Serialize;
use tg_llava_train::start::{
    Assumptions, Attention, CARDS, Card, MemoryForecast, RESERVE, StepForecast, Workload, largest_micro_batch,
};

use super::memory::{bytes, describe, line};

/// The forecast of a run over several ranks, or for a GPU.
#[derive(Debug, Serialize)]
pub(super) struct Sizes {
    /// Ranks of all nodes, and of one.
    ranks: usize,
    ranks_per_node: usize,
    batch_size: usize,
    length: usize,
    /// With attention written out, as it is today, and with a fused one.
    memory: MemoryForecast,
    memory_fused: MemoryForecast,
    /// What a card keeps for itself.
    reserve: u64,
    cards: Vec<Fits>,
    /// On well tuned kernels, and on plainer ones.
    steps: [Step; 2],
}

#[derive(Debug, Serialize)]
struct Fits {
    #[serde(flatten)]
    card: Card,
    /// Largest micro-batch; none where not one sample fits.
    written_out: Option<usize>,
    fused: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Step {
    assumed: Assumptions,
    #[serde(flatten)]
    forecast: StepForecast,
}

impl Sizes {
    /// The forecast for a run.
    pub(super) fn new(workload: &Workload<'_>) -> Self {
        let with = |attention| Workload { attention, ..*workload };
        let [written_out, fused] = Attention::ALL.map(with);
        let fits = |card| Fits {
            card,
            written_out: largest_micro_batch(&written_out, card),
            fused: largest_micro_batch(&fused, card),
        };
        let step = |assumed| Step { assumed, forecast: StepForecast::new(workload, &assumed) };
        Self {
            ranks: workload.world.size(),
            ranks_per_node: workload.world.local_size(),
            batch_size: workload.batch_size,
            length: workload.length,
            memory: MemoryForecast::new(&written_out),
            memory_fused: MemoryForecast::new(&fused),
            reserve: RESERVE,
            cards: CARDS.map(fits).into(),
            steps: [Assumptions::TUNED, Assumptions::PLAIN].map(step),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        self.describe_memory() + &self.describe_cards() + &self.describe_steps()
    }

    fn describe_memory(&self) -> String {
        let needed = |memory: &MemoryForecast| bytes(memory.on_device() + self.reserve);
        let mut text = format!(
            "memory  computed for each of {} ranks, {} a node, at micro-batches of {} x {} tokens: {}, {} with a fused attention\n",
            self.ranks,
            self.ranks_per_node,
            self.batch_size,
            self.length,
            needed(&self.memory),
            needed(&self.memory_fused)
        );
        text += &describe(&self.memory);
        text += &line("a block at work with a fused attention, about", self.memory_fused.activations.block);
        text + &line("the card's own: context, kernels, NCCL; assumed", self.reserve)
    }

    fn describe_cards(&self) -> String {
        let mut text =
            format!("fits    largest micro-batch of {} tokens, attention written out / fused\n", self.length);
        let count = |fits: Option<usize>| fits.map_or("none".to_owned(), |count| count.to_string());
        for Fits { card, written_out, fused } in &self.cards {
            text += &format!(
                "        {} GB ({}) {} / {}\n",
                card.nominal_gb,
                card.name,
                count(*written_out),
                count(*fused)
            );
        }
        text
    }

    fn describe_steps(&self) -> String {
        let [Step { assumed, forecast: step }, plain] = &self.steps;
        let mut text = format!(
            "step    {} samples in {} rounds; each rank sends {} of gradients and {} of weights within its node, {} between nodes\n",
            step.samples,
            step.rounds,
            bytes(step.transpose_bytes as u64),
            bytes(step.gather_bytes as u64),
            bytes(step.node_sum_bytes as u64)
        );
        text += &format!(
            "time    computed, not measured: {}, at {} TFLOP/s a GPU; {} at {}\n",
            speed(step),
            tera(assumed.flops),
            speed(&plain.forecast),
            tera(plain.assumed.flops)
        );
        text += &format!(
            "        computing {:.2} s, transposes {:.3}, gather {:.3}, sum over nodes {:.3}, optimizer {:.3}, waiting for the slowest \
             {:.2}\n",
            step.compute, step.transposes, step.gather, step.node_sum, step.optimizer, step.waiting
        );
        text + &format!(
            "        assumed: within a node {:.0} and {:.0} GB/s a GPU, between nodes {:.0}; ranks that differ by {:.0} %\n",
            assumed.transpose / 1e9,
            assumed.gather / 1e9,
            assumed.between_nodes / 1e9,
            100.0 * assumed.spread
        )
    }
}

fn speed(step: &StepForecast) -> String {
    format!("{:.2} s a step, {:.1} samples a second", step.seconds, step.samples as f64 / step.seconds)
}

fn tera(flops: f64) -> f64 {
    flops / 1e12
}
