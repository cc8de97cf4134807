//! From what one device took and would have sent to the time that many would take.

use serde_json::{Value, json};
use tg_llava_train::parallel::{self, Sent, World};
use tg_llava_train::start::Assumptions;

use crate::progress::short_bytes;

/// What is assumed of the machines that are imagined.
const ASSUMED: Assumptions = Assumptions::TUNED;

/// What was found out.
pub(super) struct Measured {
    pub world: World,
    pub device: String,
    /// The most memory that was held, in bytes.
    pub memory: Option<u64>,
    /// Of each step, in their order.
    pub seconds: Vec<f64>,
    /// In one step.
    pub traffic: Traffic,
}

/// Calls and bytes of each kind of collective in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Traffic {
    transpose: (f64, f64),
    all_gather: (f64, f64),
    sum_nodes: (f64, f64),
    exchange: (f64, f64),
}

impl Traffic {
    /// `sent` in `steps` steps, as one step has it.
    pub(super) fn a_step(sent: &parallel::Traffic, steps: usize) -> Self {
        let steps = steps.max(1) as f64;
        let each = |sent: &Sent| (sent.calls() as f64 / steps, sent.bytes() as f64 / steps);
        Self {
            transpose: each(&sent.transpose),
            all_gather: each(&sent.all_gather),
            sum_nodes: each(&sent.sum_nodes),
            exchange: each(&sent.exchange),
        }
    }

    fn kinds(&self) -> [(&'static str, (f64, f64)); 4] {
        [
            ("transpose", self.transpose),
            ("all_gather", self.all_gather),
            ("sum_nodes", self.sum_nodes),
            ("exchange", self.exchange),
        ]
    }
}

/// Seconds of a step, by what they go into.
struct Predicted {
    compute: f64,
    transpose: f64,
    all_gather: f64,
    sum_nodes: f64,
    waiting: f64,
}

impl Predicted {
    fn parts(&self) -> [(&'static str, f64); 5] {
        [
            ("compute", self.compute),
            ("transpose", self.transpose),
            ("all_gather", self.all_gather),
            ("sum_nodes", self.sum_nodes),
            ("waiting", self.waiting),
        ]
    }

    fn total(&self) -> f64 {
        self.parts().iter().map(|(_, seconds)| seconds).sum()
    }
}

impl Measured {
    /// The steps after the first, for which kernels are compiled; the first where it is the only one.
    fn settled(&self) -> &[f64] {
        match self.seconds.as_slice() {
            [_, rest @ ..] if !rest.is_empty() => rest,
            all => all,
        }
    }

    fn predicted(&self) -> Predicted {
        let steps = self.settled();
        let compute = steps.iter().sum::<f64>() / steps.len().max(1) as f64;
        let time = |(calls, bytes): (f64, f64), rate: f64| calls * ASSUMED.latency + bytes / rate;
        let Traffic { transpose, all_gather, sum_nodes, .. } = self.traffic;
        Predicted {
            compute,
            transpose: time(transpose, ASSUMED.transpose),
            all_gather: time(all_gather, ASSUMED.gather),
            sum_nodes: ASSUMED.node_sum(sum_nodes.0, sum_nodes.1, self.world.nodes()),
            waiting: ASSUMED.waiting(compute, self.world.size()),
        }
    }

    /// All of it, for programs.
    pub(super) fn json(&self) -> Value {
        let predicted = self.predicted();
        let traffic = self.traffic.kinds().map(|(name, (calls, bytes))| {
            (name.to_owned(), json!({ "calls_per_step": calls, "bytes_per_step": bytes }))
        });
        let parts = predicted.parts().map(|(name, seconds)| (name.to_owned(), json!(seconds)));
        json!({
            "rank": self.world.rank(),
            "ranks": self.world.size(),
            "ranks_per_node": self.world.local_size(),
            "device": self.device,
            "peak_memory_bytes": self.memory,
            "step_seconds": self.seconds,
            "traffic": serde_json::Map::from_iter(traffic),
            "predicted_step_seconds": predicted.total(),
            "predicted_parts": serde_json::Map::from_iter(parts),
        })
    }

    /// All of it, for people.
    pub(super) fn text(&self) -> String {
        let (steps, predicted) = (self.settled(), self.predicted());
        let memory = self.memory.map_or("not known".to_owned(), short_bytes);
        let mut text = format!("memory  {memory} at most on {}\n", self.device);
        let least = steps.iter().copied().fold(f64::INFINITY, f64::min);
        let most = steps.iter().copied().fold(0.0, f64::max);
        text += &match steps.len() {
            0 => "step    none was made\n".to_owned(),
            count => format!(
                "step    {:.3} s on this device, {least:.3} to {most:.3} in {count} steps after the first\n",
                predicted.compute
            ),
        };
        text += "sends   in each step\n";
        for (name, (calls, bytes)) in self.traffic.kinds() {
            text += &format!("        {name:<11} {:>12} in {calls:.0} calls\n", short_bytes(bytes as u64));
        }
        text += &format!("expect  {:.3} s a step on {} ranks\n", predicted.total(), self.world.size());
        for (name, seconds) in predicted.parts() {
            text += &format!("        {name:<11} {seconds:>9.3} s\n");
        }
        text += &format!(
            "        computed, not measured: {:.0} and {:.0} GB/s within a machine (NVLink), {:.0} from each GPU to others, \
             {:.0} us a call, ranks {:.0} % apart\n",
            ASSUMED.transpose / 1e9,
            ASSUMED.gather / 1e9,
            ASSUMED.between_nodes / 1e9,
            ASSUMED.latency * 1e6,
            ASSUMED.spread * 100.0
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vicuna-7B, stage 2, 128 samples of 2,048 tokens a step on 8 GPUs, 8 at a time, with the times and bytes of its design.
    fn vicuna(nodes: usize) -> Measured {
        let weights = 6.84e9;
        let share = 7.0 / 8.0;
        let traffic = Traffic {
            transpose: (2.0 * 40.0, 2.0 * 2.0 * weights * share),
            all_gather: (40.0, 2.0 * weights * share),
            sum_nodes: (40.0, 2.0 * 4.0 * weights / 8.0 * (nodes - 1) as f64 / nodes as f64),
            exchange: (1.0, 1e4),
        };
        let world = World::new(0, 8 * nodes, 8).unwrap();
        Measured {
            world,
            device: "cuda:0".into(),
            memory: Some(1 << 34),
            seconds: vec![9.0, 4.7, 4.8],
            traffic,
        }
    }

    #[test]
    fn time_is_predicted_as_in_the_design() {
        let predicted = vicuna(1).predicted();
        let near =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
        near(predicted.compute, 4.75);
        near(predicted.transpose, 0.0745);
        near(predicted.all_gather, 0.0342);
        near(predicted.waiting, 0.29);
        // Eight machines have three levels of a tree.
        near(vicuna(8).predicted().sum_nodes, 5.985e9 / 42e9 + 40.0 * 2.0 * 25e-6 * 3.0);
    }

    #[test]
    fn text_and_json_say_the_same() {
        let measured = vicuna(1);
        let text = measured.text();
        for words in [
            "16.00 GiB at most on cuda:0",
            "4.750 s on this device",
            "in 80 calls",
            "on 8 ranks",
            "not measured",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let json = measured.json();
        assert_eq!(json["peak_memory_bytes"], 1u64 << 34);
        assert_eq!(json["traffic"]["transpose"]["calls_per_step"], 80.0);
        assert!(json["predicted_step_seconds"].as_f64().unwrap() > 4.75);
    }

    #[test]
    fn a_single_step_is_better_than_none() {
        let one = Measured { seconds: vec![3.0], ..vicuna(1) };
        assert_eq!(one.predicted().compute, 3.0);
        let none = Measured { seconds: Vec::new(), ..vicuna(1) };
        assert!(none.text().contains("none was made"));
    }
}
