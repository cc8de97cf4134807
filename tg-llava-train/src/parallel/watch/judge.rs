//! Who is to blame when a rank waits too long. No clocks and no files here.

use std::fmt;
use std::time::Duration;

use super::heartbeat::{End, Heartbeat};
use super::progress::Phase;

/// How long what may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From one heartbeat to the next.
    pub beat: Duration,
    /// What a rank waits before it looks for the others.
    pub patience: Duration,
    /// Without a heartbeat, a rank is dead or stopped.
    pub silent: Duration,
    /// Without progress while [`Phase::Joining`]; also how late a rank may appear.
    pub joining: Duration,
    /// Without progress in a [`Phase::Step`]. With the patience and two heartbeats, this makes less than a minute. A rank that has stood
    /// still for long before may do so for four times as long.
    pub step: Duration,
    /// Without progress while [`Phase::Saving`].
    pub saving: Duration,
    /// Without progress while [`Phase::Validating`].
    pub validating: Duration,
}

/// How much longer than ever before a rank may take.
const PATTERN: f64 = 4.0;

impl Default for Limits {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(2),
            patience: Duration::from_secs(10),
            silent: Duration::from_secs(30),
            joining: Duration::from_secs(300),
            step: Duration::from_secs(45),
            saving: Duration::from_secs(1800),
            validating: Duration::from_secs(1800),
        }
    }
}

impl Limits {
    /// How long a rank may go without progress.
    pub fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Joining => self.joining,
            Phase::Step => self.step,
            Phase::Saving => self.saving,
            Phase::Validating => self.validating,
        }
    }

    /// Whether whoever told this stands still for longer than it may, other than in a collective; `slack` is added.
    fn exceeded(&self, beat: &Heartbeat, slack: Duration) -> bool {
        let pattern = match beat.standing.phase {
            Phase::Step => PATTERN * beat.longest,
            _ => 0.0,
        };
        let limit = self.of(beat.standing.phase).as_secs_f64().max(pattern) + slack.as_secs_f64();
        !beat.standing.inside && beat.still >= limit
    }

    /// Whether a rank that tells this may wait for others. On a GPU it may have gone past a collective that is still under way, so
    /// it needs not be in one.
    pub(super) fn waits(&self, own: &Heartbeat) -> bool {
        let may_wait = own.standing.inside || matches!(own.standing.phase, Phase::Joining | Phase::Step);
        may_wait && own.still >= self.patience.as_secs_f64()
    }
}

/// What another rank has told, and for how long it has told nothing new; `None` where it is not known to have started.
#[derive(Debug, Clone)]
pub(super) struct Other {
    pub rank: usize,
    pub told: Option<(Heartbeat, Duration)>,
}

/// The rank that holds up the others, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// The rank.
    pub rank: usize,
    /// Its process, machine and phase, where they are known.
    pub place: Option<(u32, String, Phase)>,
    /// What is wrong with it.
    pub kind: TroubleKind,
}

/// How a rank holds up the others.
#[derive(Debug, Clone, PartialEq)]
pub enum TroubleKind {
    /// It never started.
    Absent(Duration),
    /// It ended with this error.
    Failed(String),
    /// It ended as if all were done.
    Ended,
    /// Its process is dead or stopped, or its machine is gone.
    Silent(Duration),
    /// Its process lives and makes no progress.
    Stuck(Duration),
    /// All ranks wait in collectives, this one in an earlier one than others or none of them in another.
    Locked(Duration),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rank = self.rank;
        match &self.place {
            Some((pid, host, phase)) => write!(f, "rank {rank} (process {pid} on {host}, {})", phase.name())?,
            None => write!(f, "rank {rank}")?,
        }
        let seconds = |time: &Duration| time.as_secs_f64().round();
        match &self.kind {
            TroubleKind::Absent(time) => write!(f, " has not started within {} s", seconds(time)),
            TroubleKind::Failed(message) => write!(f, " failed: {message}"),
            TroubleKind::Ended => write!(f, " has ended while others go on"),
            TroubleKind::Silent(time) => {
                write!(f, " gives no sign of life for {} s: it is dead or stopped", seconds(time))
            }
            TroubleKind::Stuck(time) => write!(f, " makes no progress for {} s: it hangs", seconds(time)),
            TroubleKind::Locked(time) => {
                write!(f, " waits for the others in a collective for {} s, and they for it", seconds(time))
            }
        }
    }
}

impl Trouble {
    fn new(beat: &Heartbeat, kind: TroubleKind) -> Self {
        let place = Some((beat.pid, beat.host.clone(), beat.standing.phase));
        Self { rank: beat.rank, place, kind }
    }
}

/// What is wrong, as a rank sees it that tells `own`, `since` so long after its start.
pub(super) fn judge(own: &Heartbeat, since: Duration, others: &[Other], limits: &Limits) -> Option<Trouble> {
    if limits.waits(own) {
        let told: Vec<_> = others.iter().filter_map(|other| other.told.as_ref()).collect();
        let ended = told.iter().find_map(|(beat, _)| Some((beat, beat.end.as_ref()?)));
        if let Some((beat, end)) = ended {
            let kind = match end {
                End::Failed(message) => TroubleKind::Failed(message.clone()),
                End::Done => TroubleKind::Ended,
            };
            return Some(Trouble::new(beat, kind));
        }
        if let Some((beat, time)) = told.iter().find(|(_, time)| *time >= limits.silent) {
            return Some(Trouble::new(beat, TroubleKind::Silent(*time)));
        }
        let absent = others.iter().find(|other| other.told.is_none());
        if let Some(Other { rank, .. }) = absent.filter(|_| since >= limits.joining) {
            return Some(Trouble { rank: *rank, place: None, kind: TroubleKind::Absent(since) });
        }
        let hanging = told.iter().map(|(beat, _)| beat).filter(|beat| limits.exceeded(beat, Duration::ZERO));
        // Whoever hangs holds up the others, which may have gone past some more collectives.
        let hanging = hanging.min_by_key(|beat| beat.standing.collectives);
        let hanging = hanging
            .filter(|beat| own.standing.inside || beat.standing.collectives < own.standing.collectives);
        if let Some(beat) = hanging {
            return Some(Trouble::new(beat, TroubleKind::Stuck(Duration::from_secs_f64(beat.still))));
        }
        let all = || told.iter().map(|(beat, _)| beat).chain([own]);
        let locked = absent.is_none()
            && !told.is_empty()
            && all().all(|beat| beat.standing.inside && beat.still >= limits.step.as_secs_f64());
        if let Some(beat) = all().min_by_key(|beat| beat.standing.collectives).filter(|_| locked) {
            return Some(Trouble::new(beat, TroubleKind::Locked(Duration::from_secs_f64(own.still))));
        }
    }
    // Last, and later than the others would: nobody else is to blame.
    limits
        .exceeded(own, 2 * limits.beat)
        .then(|| Trouble::new(own, TroubleKind::Stuck(Duration::from_secs_f64(own.still))))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
