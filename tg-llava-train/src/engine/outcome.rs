use super::timed::CollectiveTimes;

/// What one optimizer step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Mean of the micro-batches' losses, as [`LossMean`](super::LossMean) has it; NaN where all were empty.
    pub loss: f64,
    /// Loss of each micro-batch that was not empty.
    pub micro_losses: Vec<f64>,
    /// Learning rate of the step, without the components' own.
    pub lr: f64,
    /// Global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Whether the weights were updated; not where a loss or a gradient is not finite.
    pub updated: bool,
    /// What went through the model.
    pub work: StepTotals,
}

/// What went through the model in a step, on all ranks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepTotals {
    /// Ids of the samples, by rank.
    pub samples: Vec<String>,
    /// Decoder tokens without padding.
    pub tokens: usize,
    /// Whether a rank wants to end the run.
    pub wants_stop: bool,
    /// Where each rank's time went.
    pub ranks: Vec<CollectiveTimes>,
}

impl StepTotals {
    /// The rank that the others waited for, where there are others: the one that waited least.
    pub fn straggler(&self) -> Option<usize> {
        let ranks = self.ranks.iter().enumerate();
        let slowest = ranks.min_by(|(_, a), (_, b)| a.collectives.total_cmp(&b.collectives));
        slowest.map(|(rank, _)| rank).filter(|_| self.ranks.len() > 1)
    }

    /// Share of the ranks' time that went into collectives and waiting there, where there are others.
    pub fn communication(&self) -> Option<f64> {
        let sum = |pick: fn(&CollectiveTimes) -> f64| self.ranks.iter().map(pick).sum::<f64>();
        let share = sum(|times| times.collectives) / sum(|times| times.step);
        Some(share).filter(|share| self.ranks.len() > 1 && share.is_finite())
    }
}
