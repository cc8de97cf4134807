//! Ranks in processes of their own watch each other: none waits for ever for one that is dead or hangs.
//!
//! Each process has a thread that tells every few seconds, in a file beside those of the other ranks, that it lives and how far the
//! rank's work is. Whoever waits for longer than usual reads what the others tell, and names the one that holds it up. Files are
//! enough: the ranks share `output_dir` anyway, and no connection has to be open to a rank in trouble. Clocks of different machines
//! are never compared.

mod heartbeat;
mod judge;
mod progress;
mod watched;

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{fs, io};

pub use judge::{Limits, Trouble, TroubleKind};
pub use progress::{During, Phase, Progress, Standing};
pub use watched::Watched;

use self::heartbeat::{End, Heartbeat, host};
use self::judge::{Other, judge};
use super::{Collective, Placement};

/// What a process needs to watch, and to be watched.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// The folder of all ranks' heartbeats.
    pub folder: PathBuf,
    /// This rank among all.
    pub placement: Placement,
    /// How long what may take.
    pub limits: Limits,
    /// Where this rank's work says how far it is.
    pub progress: Progress,
}

/// Keeps telling the other ranks that this one lives, and looks for them where it waits, until it is told how this one
/// [ended](Self::end).
#[derive(Debug)]
pub struct Watch {
    progress: Progress,
    ended: Option<mpsc::Sender<End>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins. `alarm` is called, on a thread of its own, where another rank holds this one up for good, or this one hangs; it is to
    /// end the process.
    ///
    /// # Errors
    /// Where the folder cannot be written, or the system gives no thread.
    pub fn start(options: WatchOptions, alarm: impl FnOnce(Trouble) + Send + 'static) -> io::Result<Self> {
        let progress = options.progress.clone();
        fs::create_dir_all(&options.folder)?;
        let observer = Observer::new(options);
        // Also so that nobody takes for alive what an earlier run has left.
        observer.own.write(&observer.options.folder)?;
        let (ended, end) = mpsc::channel();
        let thread =
            std::thread::Builder::new().name("watch".into()).spawn(move || observer.keep_on(&end, alarm))?;
        Ok(Self { progress, ended: Some(ended), thread: Some(thread) })
    }

    /// `collective`, which says to this watch when it is used.
    pub fn over<C: Collective>(&self, collective: C) -> Watched<C> {
        Watched::new(collective, self.progress.clone())
    }

    /// Tells the others how this rank ended, and no more.
    pub fn end(mut self, result: Result<(), String>) {
        self.finish(result.map_or_else(End::Failed, |()| End::Done));
    }

    fn finish(&mut self, end: End) {
        let Some(ended) = self.ended.take() else { return };
        // It fails only after an alarm, when all has been told.
        let _ = ended.send(end);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.finish(End::Failed("it ended without a word".into()));
    }
}

/// What the thread of a [`Watch`] knows.
struct Observer {
    options: WatchOptions,
    own: Heartbeat,
    start: Instant,
    /// When this rank's work last moved on.
    moved: Instant,
    /// Of each other rank that was looked at: its last beat that was new, and when that was seen.
    seen: Vec<Option<(u64, Instant)>>,
}

impl Observer {
    fn new(options: WatchOptions) -> Self {
        let (now, world) = (Instant::now(), options.placement.world);
        let own = Heartbeat {
            job: options.placement.job.clone(),
            rank: world.rank(),
            pid: std::process::id(),
            host: host(),
            beat: 0,
            standing: options.progress.standing(),
            still: 0.0,
            longest: 0.0,
            end: None,
        };
        Self { own, start: now, moved: now, seen: vec![None; world.size()], options }
    }

    fn keep_on(mut self, end: &mpsc::Receiver<End>, alarm: impl FnOnce(Trouble)) {
        let beat = self.options.limits.beat;
        let mut last = Instant::now();
        loop {
            let ended = end.recv_timeout(beat);
            if last.elapsed() > 5 * beat {
                // The whole job may have been stopped for a while, and nobody is to blame for that.
                self.seen.fill(None);
                self.moved = Instant::now();
            }
            last = Instant::now();
            match ended {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(end) => return self.tell_end(end),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(trouble) = self.look() {
                self.tell_end(End::Failed(trouble.to_string()));
                return alarm(trouble);
            }
        }
    }

    /// Tells where this rank is, and looks for the others where it waits for them.
    fn look(&mut self) -> Option<Trouble> {
        let standing = self.options.progress.standing();
        if standing != self.own.standing {
            let learned = !self.own.standing.inside && self.own.standing.phase == Phase::Step;
            if learned {
                self.own.longest = self.own.longest.max(self.own.still);
            }
            (self.own.standing, self.moved) = (standing, Instant::now());
        }
        self.own.still = self.moved.elapsed().as_secs_f64();
        self.own.beat += 1;
        // Where this one cannot write, the others may not be able to either.
        let told = self.own.write(&self.options.folder).is_ok();
        let others = match self.options.limits.waits(&self.own) && told {
            true => self.others(),
            false => {
                self.seen.fill(None);
                Vec::new()
            }
        };
        judge(&self.own, self.start.elapsed(), &others, &self.options.limits)
    }

    /// What the others tell; nothing where someone else's run writes into the same folder just now.
    fn others(&mut self) -> Vec<Other> {
        let now = Instant::now();
        let mut others = Vec::new();
        for (rank, seen) in self.seen.iter_mut().enumerate().filter(|(rank, _)| *rank != self.own.rank) {
            // All have begun once they have met; until then, a file may be an earlier run's.
            let own = &self.own.standing;
            let met = own.collectives > u64::from(own.inside);
            let told = Heartbeat::read(&self.options.folder, rank);
            let ours = |told: &Heartbeat| match (&told.job, &self.own.job) {
                (Some(theirs), Some(own)) => theirs == own,
                _ => met,
            };
            let told = match told {
                Some(told) if !ours(&told) && met => return Vec::new(),
                told => told.filter(ours),
            };
            let told = told.map(|told| {
                let (_, since) = *seen.insert(match *seen {
                    Some((beat, since)) if beat == told.beat => (beat, since),
                    _ => (told.beat, now),
                });
                (told, now.duration_since(since))
            });
            others.push(Other { rank, told });
        }
        others
    }

    fn tell_end(&mut self, end: End) {
        self.own.beat += 1;
        self.own.standing = self.options.progress.standing();
        self.own.end = Some(end);
        // The others find out by themselves, a little later.
        let _ = self.own.write(&self.options.folder);
    }
}

#[cfg(test)]
mod tests;
