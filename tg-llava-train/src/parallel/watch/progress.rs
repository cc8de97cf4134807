use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

/// What a rank is at, which decides how long it may take without a sign of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Finding the others, loading, and the first step, for which kernels are compiled.
    Joining,
    /// Learning.
    Step,
    /// Writing a checkpoint or the model.
    Saving,
    /// Checking the model on held-out samples.
    Validating,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Joining, Self::Step, Self::Saving, Self::Validating];

    /// The name, as in `while saving`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Step => "training",
            Self::Saving => "saving",
            Self::Validating => "validating",
        }
    }
}

/// How far a rank is. Whoever does its work says so here, as often as it likes: it costs an addition. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    ticks: AtomicU64,
    collectives: AtomicU64,
    inside: AtomicBool,
    /// Index into [`Phase::ALL`].
    phase: AtomicU8,
}

/// How far a rank was at some time; unequal where it has moved on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What it is at.
    pub phase: Phase,
    /// Signs of progress so far.
    pub ticks: u64,
    /// Collectives begun so far.
    pub collectives: u64,
    /// Whether it is in a collective, and may wait for others.
    pub inside: bool,
}

impl Progress {
    /// That of this process, where a process is a rank.
    pub fn of_process() -> Self {
        static OWN: OnceLock<Progress> = OnceLock::new();
        OWN.get_or_init(Self::default).clone()
    }

    /// Something was done.
    pub fn tick(&self) {
        self.0.ticks.fetch_add(1, Relaxed);
    }

    /// Begins `phase`; the one before goes on when the result is dropped.
    pub fn during(&self, phase: Phase) -> During {
        let before = self.standing().phase;
        self.enter(phase);
        During { progress: self.clone(), before }
    }

    /// Begins `phase`.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.store(phase as u8, Relaxed);
        self.tick();
    }

    /// Begins a collective, which lasts as long as the result.
    pub(super) fn collective(&self) -> Inside {
        self.0.inside.store(true, Relaxed);
        self.0.collectives.fetch_add(1, Relaxed);
        Inside(self.clone())
    }

    /// How far it is now.
    pub fn standing(&self) -> Standing {
        let phase = usize::from(self.0.phase.load(Relaxed));
        Standing {
            phase: Phase::ALL.get(phase).copied().unwrap_or(Phase::Joining),
            ticks: self.0.ticks.load(Relaxed),
            collectives: self.0.collectives.load(Relaxed),
            inside: self.0.inside.load(Relaxed),
        }
    }
}

/// A phase under way.
#[derive(Debug)]
pub struct During {
    progress: Progress,
    before: Phase,
}

impl Drop for During {
    fn drop(&mut self) {
        self.progress.enter(self.before);
    }
}

/// A collective under way.
#[derive(Debug)]
pub(super) struct Inside(Progress);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.inside.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_numbered_as_they_are_listed() {
        let progress = Progress::default();
        assert_eq!(progress.standing().phase, Phase::Joining);
        for phase in Phase::ALL {
            progress.enter(phase);
            assert_eq!(progress.standing().phase, phase);
        }
    }

    #[test]
    fn whatever_is_done_shows() {
        let progress = Progress::default();
        progress.enter(Phase::Step);
        let mut last = progress.standing();
        let mut moved = || {
            let now = progress.standing();
            std::mem::replace(&mut last, now) != now
        };
        progress.clone().tick();
        assert!(moved() && !moved());
        let saving = progress.during(Phase::Saving);
        assert!(moved());
        let inside = progress.collective();
        assert!(moved() && progress.standing().inside);
        drop(inside);
        assert!(moved() && progress.standing().collectives == 1);
        drop(saving);
        assert_eq!(progress.standing().phase, Phase::Step);
    }
}
