//! The loop: micro-batches to steps, with everything that happens between two of them.

use std::sync::Arc;
use std::time::Instant;

use super::super::stream::BatchStream;
use super::files::RunLog;
use super::{Session, Summary};
use crate::config::OnNan;
use crate::data::{DataError, Micro, SampleNotice};
use crate::engine::{LossMean, StepOutcome, scalar};
use crate::log::{StepRecord, StepWork, Throughput, memory_bytes};
use crate::optim::ParameterGradients;
use crate::run::{Observer, RunError};

/// Steps over which speeds are averaged.
const SPEED_WINDOW: usize = 20;

/// Samples that were left out whose reasons are told where nothing was learned.
const REASONS: usize = 3;

/// What a step was fed with.
#[derive(Default)]
struct Fed {
    /// Ids of the samples.
    samples: Vec<String>,
    /// Decoder tokens without padding.
    tokens: usize,
}

impl Fed {
    fn add(&mut self, micro: &Micro) {
        self.samples.extend(micro.samples.iter().cloned());
        self.tokens += micro.tokens();
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
        let mut log = RunLog::open(&self.config, self.trainer.steps())?;
        self.make_up_for_check(&mut log, observer)?;
        let data = Arc::clone(&self.data);
        let options = &self.config.data;
        let (threads, ahead) = (options.workers, options.prefetch);
        let mut stream = BatchStream::new(&data, self.config.run.batch_size, threads, ahead, self.position);
        let mut speed = Throughput::new(SPEED_WINDOW);
        let mut learnable = !self.trainer.optimizer().steps().is_empty();
        let mut interrupted = false;
        while self.trainer.steps() < self.total_steps {
            let begin = Instant::now();
            let (outcome, Fed { samples, tokens }) = self.one_step(&mut stream)?;
            let done = self.trainer.steps();
            self.position = stream.position();
            let elapsed = begin.elapsed();
            self.seconds += elapsed.as_secs_f64();
            speed.push(StepWork { samples: samples.len(), tokens, elapsed, waited: stream.take_waited() });
            let record = self.step_record(&outcome, stream.epochs(), &speed);
            self.last_loss = outcome.loss;
            if !outcome.updated {
                self.not_updated(&outcome, &samples, &mut log, observer)?;
            }
            learnable |= !outcome.micro_losses.is_empty();
            if !learnable && stream.epochs() >= 1.0 {
                return Err(self.nothing_learned());
            }
            if done.is_multiple_of(self.config.run.log_every) || done == self.total_steps {
                log.write(&record.clone().into())?;
                observer.step(&record, (done, self.total_steps));
            }
            // What was learned is safe before anything looks at it.
            if self.config.run.save_steps.is_due(done, self.total_steps) {
                self.save(observer)?;
            }
            if self.check_is_due() {
                self.check(&mut log, observer)?;
            }
            if observer.should_stop() && done < self.total_steps {
                interrupted = true;
                break;
            }
        }
        self.finish(log, interrupted, observer)
    }

    /// Micro-batches until an optimizer step is full, and the step. Each goes, with its pictures, as soon as it has
    /// been learned from.
    fn one_step(&mut self, stream: &mut BatchStream<'_>) -> Result<(StepOutcome, Fed), RunError> {
        let mut fed = Fed::default();
        let trainer = &mut self.trainer;
        let micros = (0..self.config.run.accumulation).map(|_| stream.next_micro().inspect(|m| fed.add(m)));
        let outcome = match trainer.options().loss_mean {
            // Each one's share is known only when all are there.
            LossMean::Tokens => trainer.step(&micros.collect::<Result<Vec<Micro>, DataError>>()?)?,
            LossMean::MicroBatches => {
                let (mut gradients, mut losses) = (ParameterGradients::new(), Vec::new());
                for (place, micro) in micros.enumerate() {
                    let micro = micro?;
                    if !micro.is_empty() {
                        losses.push(trainer.accumulate(&micro, place, 1.0, &mut gradients)?);
                    }
                }
                let losses = losses.into_iter().map(scalar).collect::<tg_llava_core::Result<Vec<f64>>>()?;
                let weights = vec![1.0; losses.len()];
                trainer.update(gradients, losses, &weights)?
            }
        };
        Ok((outcome, fed))
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
        }
    }

    /// A step that left the weights alone: nothing to learn, an overflow that the loss scale answers, or trouble.
    fn not_updated(
        &self,
        outcome: &StepOutcome,
        samples: &[String],
        log: &mut RunLog,
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
            let samples = samples.join(", ");
            format!("step {step} left out: loss {loss}, norm {norm}; its samples: {samples}")
        } else {
            return Err(RunError::NotFinite {
                step,
                loss: outcome.loss,
                grad_norm: outcome.grad_norm,
                samples: samples.join(", "),
            });
        };
        self.tell(&text, log, observer)
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
        log: RunLog,
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
                self.write_model(&self.config.output_dir)?;
                self.config.output_dir.clone()
            }
        };
        if let Err(error) = log.plot(&self.config) {
            observer.note(&format!("no plot: {error}"));
        }
        Ok(Summary {
            steps: self.trainer.steps(),
            total_steps: self.total_steps,
            loss: self.last_loss,
            evaluation: self.evaluation.clone(),
            best: self.best.clone(),
            saved,
            interrupted,
            notices: self.notices(),
        })
    }
}
