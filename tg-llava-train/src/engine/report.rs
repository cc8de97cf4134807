//! What the ranks tell one another at the end of a step; all that follows depends on these bytes alone.

use serde::{Deserialize, Serialize};

use super::StepTotals;
use super::timed::CollectiveTimes;
use crate::data::Micro;
use crate::parallel::{ParallelError, World};

/// One rank's part of a step.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct StepReport {
    /// Place, supervised tokens, and the bits of the loss of each micro-batch that was not empty.
    pub losses: Vec<(usize, usize, u64)>,
    /// For which parameters there was a gradient, in the order of the units.
    pub seen: Vec<bool>,
    /// Ids of the samples.
    samples: Vec<String>,
    /// Decoder tokens without padding.
    tokens: usize,
    /// What went wrong.
    pub trouble: Option<String>,
    /// Whether this rank wants to end the run.
    pub wants_stop: bool,
    /// Where the time went.
    pub times: CollectiveTimes,
}

impl StepReport {
    /// Counts a micro-batch.
    pub fn fed<B>(&mut self, micro: &Micro<B>) {
        self.samples.extend(micro.samples.iter().cloned());
        self.tokens += micro.tokens();
    }

    /// The report as bytes, with the sums of squares of this rank's slices.
    pub fn encode(&self, squares: &[f32]) -> Vec<u8> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text);
        bytes.extend(squares.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        let (text, squares) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        Some((serde_json::from_slice(text).ok()?, squares))
    }
}

/// The reports of all ranks.
pub(super) struct Reports {
    ranks: Vec<StepReport>,
    /// Of all slices, by rank.
    squares: Vec<Vec<f32>>,
    /// What the world did.
    pub work: StepTotals,
}

impl Reports {
    /// Reads what all ranks of `world` sent.
    pub fn decode(bytes: &[Vec<u8>], world: World) -> Result<Self, ParallelError> {
        let (mut ranks, mut squares) = (Vec::new(), Vec::new());
        for (rank, bytes) in bytes.iter().enumerate() {
            let unlike =
                || ParallelError::Unlike { rank, what: "its report of the step cannot be read".into() };
            let (report, values) = StepReport::decode(bytes).ok_or_else(unlike)?;
            ranks.push(report);
            // Every node holds all slices.
            if rank < world.local_size() {
                let values = values.as_chunks::<4>().0.iter();
                squares.push(values.map(|bytes| f32::from_le_bytes(*bytes)).collect());
            }
        }
        let work = StepTotals {
            samples: ranks.iter_mut().flat_map(|rank| std::mem::take(&mut rank.samples)).collect(),
            tokens: ranks.iter().map(|rank| rank.tokens).sum(),
            wants_stop: ranks.iter().any(|rank| rank.wants_stop),
            ranks: ranks.iter().map(|rank| rank.times).collect(),
        };
        Ok(Self { ranks, squares, work })
    }

    /// The first rank in trouble.
    pub fn trouble(&self) -> Option<(usize, String)> {
        let mut found = self.ranks.iter().enumerate();
        found.find_map(|(rank, report)| Some((rank, report.trouble.clone()?)))
    }

    /// For which parameters any rank had a gradient.
    pub fn seen(&self) -> Vec<bool> {
        let mut seen = vec![false; self.ranks.iter().map(|rank| rank.seen.len()).max().unwrap_or(0)];
        for report in &self.ranks {
            seen.iter_mut().zip(&report.seen).for_each(|(all, one)| *all |= one);
        }
        seen
    }

    /// Supervised tokens and loss of each micro-batch that was not empty, in their order.
    pub fn losses(&self) -> Vec<(usize, f64)> {
        let mut all: Vec<_> = self.ranks.iter().flat_map(|rank| &rank.losses).collect();
        all.sort_by_key(|(place, ..)| *place);
        all.into_iter().map(|(_, supervised, bits)| (*supervised, f64::from_bits(*bits))).collect()
    }

    /// The length of the sum of all gradients, unscaled. `rows` are the sums of squares that each rank has of each parameter, in the
    /// order of the paths.
    pub fn norm(&self, rows: impl Iterator<Item = usize>) -> f64 {
        let (mut at, mut sum) = (0, 0.0);
        for rows in rows {
            for squares in &self.squares {
                // One by one: sums of sums would depend on the number of ranks.
                squares[at..at + rows].iter().for_each(|square| sum += f64::from(*square));
            }
            at += rows;
        }
        f64::sqrt(sum)
    }
}
