//! The loop: micro-batches to steps, with everything that happens between two of them.

use std::sync::Arc;
use std::time::Instant;

use super::super::stream::BatchStream;
use super::files::RunLog;
use super::{Session, Summary};
use crate::config::OnNan;
use crate::data::{Batch, Micro, SampleNotice};
use crate::engine::{StepFeed, StepOutcome, StepTotals};
use crate::log::{Record, StepRecord, StepWork, Throughput, memory_bytes};
use crate::parallel::agree;
use crate::parallel::watch::{Phase, Progress};
use crate::run::{Observer, RunError};

/// Steps over which speeds are averaged.
const SPEED_WINDOW: usize = 20;

/// Samples that were left out whose reasons are told where nothing was learned.
const REASONS: usize = 3;

/// Feeds a step from the stream; each micro-batch goes, with its pictures, when the next one comes.
struct Feed<'a> {
    stream: &'a mut BatchStream,
    observer: &'a mut dyn Observer,
    micro: Option<Micro>,
}

impl StepFeed for Feed<'_> {
    type Input = Batch;
    type Error = RunError;

    fn micro(&mut self, _place: usize) -> Result<Option<&Micro>, RunError> {
        self.micro = None;
        self.micro = self.stream.next_micro()?;
        Ok(self.micro.as_ref())
    }

    fn wants_stop(&mut self) -> bool {
        self.observer.should_stop()
    }
}

impl Session {
    /// Trains to the last step, or until `observer` wants to stop; either way everything is saved.
    ///
    /// # Errors
    /// Where a sample cannot be used, the loss is not finite, nothing at all was learned, or a file cannot be
    /// written. Checkpoints made before stay as they are.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Summary, RunError> {
        for message in std::mem::take(&mut self.messages) {
            observer.note(&message);
        }
        let mut log = match self.writes() {
            true => Some(RunLog::open(&self.config, self.trainer.steps())?),
            false => None,
        };
        self.make_up_for_check(&mut log, observer)?;
        let data = Arc::clone(&self.data);
        let options = &self.config.data;
        let workers = (options.workers, options.prefetch);
        let world = self.trainer.world();
        let dealing = self.config.run.dealing(world.size());
        let mut stream = BatchStream::new(&data, dealing, world, workers, self.position);
        let mut speed = Throughput::new(SPEED_WINDOW);
        let mut learnable = !self.trainer.optimizer().steps().is_empty();
        let mut interrupted = false;
        while self.trainer.steps() < self.total_steps {
            let begin = Instant::now();
            let mut feed = Feed { stream: &mut stream, observer, micro: None };
            let outcome = self.trainer.step_over(dealing.micro_batches, &mut feed)?;
            // What takes longer in a first step is done.
            Progress::of_process().enter(Phase::Step);
            stream.end_step();
            let done = self.trainer.steps();
            self.position = stream.position();
            let elapsed = begin.elapsed();
            self.seconds += elapsed.as_secs_f64();
            let StepTotals { samples, tokens, .. } = &outcome.work;
            let (samples, tokens) = (samples.len(), *tokens);
            speed.push(StepWork { samples, tokens, elapsed, waited: stream.take_waited() });
            let record = self.step_record(&outcome, stream.epochs(), &speed);
            self.last_loss = outcome.loss;
            if !outcome.updated {
                self.not_updated(&outcome, &mut log, observer)?;
            }
            learnable |= !outcome.micro_losses.is_empty();
            if !learnable && stream.epochs() >= 1.0 {
                return Err(self.nothing_learned());
            }
            if done.is_multiple_of(self.config.run.log_every) || done == self.total_steps {
                self.write(&mut log, &record.clone().into())?;
                observer.step(&record, (done, self.total_steps));
            }
            // What was learned is safe before anything looks at it.
            if self.config.run.save_steps.is_due(done, self.total_steps) {
                self.save(observer)?;
            }
            if self.check_is_due() {
                self.check(&mut log, observer)?;
            }
            // Alone there is no one to ask, so a wish that came up since the step counts as well.
            let stop = outcome.work.wants_stop || (world.size() == 1 && observer.should_stop());
            if stop && done < self.total_steps {
                interrupted = true;
                break;
            }
        }
        self.finish(log, interrupted, observer)
    }

    fn step_record(&self, outcome: &StepOutcome, epoch: f64, speed: &Throughput) -> StepRecord {
        StepRecord {
            step: self.trainer.steps(),
            epoch,
            loss: outcome.loss,
            lr: outcome.lr,
            grad_norm: Some(outcome.grad_norm),
            samples_per_s: speed.samples_per_s(),
            tokens_per_s: speed.tokens_per_s(),
            data_wait: speed.data_wait(),
            memory_bytes: memory_bytes(),
            seconds: self.seconds,
            skipped: !outcome.updated,
            loss_scale: Some(self.trainer.options().loss_scale.scale).filter(|&scale| scale != 1.0),
            straggler: outcome.work.straggler(),
            communication: outcome.work.communication(),
        }
    }

    /// A step that left the weights alone: nothing to learn, an overflow that the loss scale answers, or trouble.
    fn not_updated(
        &self,
        outcome: &StepOutcome,
        log: &mut Option<RunLog>,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let step = self.trainer.steps();
        let text = if outcome.micro_losses.is_empty() {
            let reasons = self.left_out(1);
            format!("step {step}: no sample with anything to learn; the weights stay as they are; {reasons}")
        } else if self.trainer.options().loss_scale.dynamic && outcome.loss.is_finite() {
            let scale = self.trainer.options().loss_scale.scale;
            format!("step {step}: the gradient overflowed; the loss scale is {scale} from now on")
        } else if self.config.optim.on_nan == OnNan::Skip {
            let (loss, norm) = (outcome.loss, outcome.grad_norm);
            let samples = outcome.work.samples.join(", ");
            format!("step {step} left out: loss {loss}, norm {norm}; its samples: {samples}")
        } else {
            return Err(RunError::NotFinite {
                step,
                loss: outcome.loss,
                grad_norm: outcome.grad_norm,
                samples: outcome.work.samples.join(", "),
            });
        };
        self.tell(&text, log, observer)
    }

    /// Whether this rank writes what is written once.
    pub(super) fn writes(&mut self) -> bool {
        self.trainer.world().leads() && !self.trainer.collective().is_simulated()
    }

    pub(super) fn write(&self, log: &mut Option<RunLog>, record: &Record) -> Result<(), RunError> {
        log.as_mut().map_or(Ok(()), |log| log.write(record))
    }

    /// Every sample so far that was left out or taught nothing.
    fn notices(&self) -> Vec<SampleNotice> {
        let mut notices = self.data.loader.notices();
        notices.extend(self.data.validation.iter().flat_map(|(loader, _)| loader.notices()));
        notices.dedup();
        notices
    }

    /// How many samples were left out, and why the first `reasons` of them.
    fn left_out(&self, reasons: usize) -> String {
        let notices = self.data.loader.notices();
        let reasons: Vec<&str> = notices.iter().take(reasons).map(|notice| notice.message.as_str()).collect();
        match notices.len() {
            0 => "no sample was left out; losses or gradients were not finite".to_owned(),
            count => format!("{count} samples left out so far, the first: {}", reasons.join("; ")),
        }
    }

    fn nothing_learned(&self) -> RunError {
        RunError::NothingLearned { steps: self.trainer.steps(), reason: self.left_out(REASONS) }
    }

    /// The last checkpoint, the trained model in `output_dir`, and the plot.
    fn finish(
        &mut self,
        log: Option<RunLog>,
        interrupted: bool,
        observer: &mut dyn Observer,
    ) -> Result<Summary, RunError> {
        if !interrupted && self.trainer.optimizer().steps().is_empty() {
            return Err(self.nothing_learned());
        }
        self.save(observer)?;
        let saved = match interrupted {
            true => self.store.path_of(self.trainer.steps()),
            false => {
                self.save_trained()?;
                self.config.output_dir.clone()
            }
        };
        if let Some(Err(error)) = log.map(|log| log.plot(&self.config)) {
            observer.note(&format!("no plot: {error}"));
        }
        let notices = self.notices();
        let notices = agree::<_, RunError>(self.trainer.collective(), Ok(notices))?;
        Ok(Summary {
            steps: self.trainer.steps(),
            total_steps: self.total_steps,
            loss: self.last_loss,
            evaluation: self.evaluation.clone(),
            best: self.best.clone(),
            saved,
            interrupted,
            notices: merged(notices),
        })
    }
}

/// The notices of all ranks, each once.
fn merged(ranks: Vec<Vec<SampleNotice>>) -> Vec<SampleNotice> {
    let mut notices: Vec<SampleNotice> = Vec::new();
    for notice in ranks.into_iter().flatten() {
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }
    notices
}
